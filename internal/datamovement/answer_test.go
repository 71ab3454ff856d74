package datamovement

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

var began, ended = nnf.NewMicroTime(time.Unix(1743526000, 535519000)), nnf.NewMicroTime(time.Unix(1743526090, 0))

// local sets the zone for one test: texts are in local time.
func local(t *testing.T) {
	was := time.Local
	t.Cleanup(func() { time.Local = was })
	time.Local = time.FixedZone("CDT", -5*3600)
}

const (
	beganText = "2025-04-01 11:46:40.535519 -0500 CDT"
	endedText = "2025-04-01 11:48:10 -0500 CDT"
)

// The table of the contract, nnf-dm.md 4.4, and rows 10 and 30 of "Do better".
func TestAnswerOf(t *testing.T) {
	local(t)
	empty := &CommandAnswer{}
	for _, c := range []struct {
		name   string
		status nnf.DataMovementStatus
		cancel bool
		want   Answer
		done   bool
	}{
		{"nothing yet", nnf.DataMovementStatus{}, false, Answer{State: StatePending, Result: ResultUnknown}, false},
		{"waits for something", nnf.DataMovementStatus{Message: "no storage"}, false, Answer{State: StatePending, Result: ResultUnknown, Waiting: "no storage"}, false},
		{"cancelled before the start", nnf.DataMovementStatus{}, true, Answer{State: StateCancelling, Result: ResultUnknown}, false},
		{"state without a start", nnf.DataMovementStatus{State: "Running"}, false, Answer{State: StatePending, Result: ResultUnknown}, false},
		{"starting", nnf.DataMovementStatus{State: "Starting", StartTime: began}, false, Answer{State: StateStarting, Result: ResultUnknown, StartTime: beganText, Command: empty}, false},
		{"running", nnf.DataMovementStatus{State: "Running", StartTime: began, Restarts: 2}, false, Answer{State: StateRunning, Result: ResultUnknown, StartTime: beganText, Command: empty, Restarts: 2}, false},
		{"no state", nnf.DataMovementStatus{StartTime: began}, false, Answer{State: StateUnknown, Result: ResultUnknown, StartTime: beganText, Command: empty}, false},
		{"being cancelled", nnf.DataMovementStatus{State: "Running", StartTime: began}, true, Answer{State: StateCancelling, Result: ResultUnknown, StartTime: beganText, Command: empty}, false},
		{"success", nnf.DataMovementStatus{State: "Finished", Status: "Success", Message: "out\n", StartTime: began, EndTime: ended}, false,
			Answer{State: StateCompleted, Result: ResultSuccess, Message: "out\n", StartTime: beganText, EndTime: endedText, Command: empty}, true},
		{"success in spite of cancel", nnf.DataMovementStatus{State: "Finished", Status: "Success", StartTime: began, EndTime: ended}, true,
			Answer{State: StateCompleted, Result: ResultSuccess, StartTime: beganText, EndTime: endedText, Command: empty}, true},
		{"failed", nnf.DataMovementStatus{State: "Finished", Status: "Failed", StartTime: began, EndTime: ended}, false,
			Answer{State: StateCompleted, Result: ResultFailed, StartTime: beganText, EndTime: endedText, Command: empty}, true},
		{"cancelled", nnf.DataMovementStatus{State: "Finished", Status: "Cancelled", StartTime: began, EndTime: ended}, true,
			Answer{State: StateCompleted, Result: ResultCancelled, StartTime: beganText, EndTime: endedText, Command: empty}, true},
		{"invalid, never started nor ended", nnf.DataMovementStatus{State: "Finished", Status: "Invalid", Message: "no profile"}, false,
			Answer{State: StateCompleted, Result: ResultInvalid, Message: "no profile", Command: empty}, true},
		{"finished without times", nnf.DataMovementStatus{State: "Finished", Status: "Failed"}, false, Answer{State: StateCompleted, Result: ResultFailed, Command: empty}, true},
		{"unknown state", nnf.DataMovementStatus{State: "Pausing", StartTime: began}, false,
			Answer{State: StateUnknown, Result: ResultUnknown, StartTime: beganText, Command: empty, Message: `the rabbit says state "Pausing", status "", which this version does not know`}, false},
		{"unknown status", nnf.DataMovementStatus{State: "Finished", Status: "Partial\n", Message: "m", StartTime: began, EndTime: ended}, false,
			Answer{State: StateCompleted, Result: ResultUnknown, StartTime: beganText, EndTime: endedText, Command: empty, Message: `m; the rabbit says state "Finished", status "Partial\n", which this version does not know`}, true},
		{"end without state", nnf.DataMovementStatus{StartTime: began, EndTime: ended}, false,
			Answer{State: StateUnknown, Result: ResultUnknown, StartTime: beganText, EndTime: endedText, Command: empty}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dm := movement(func(d *nnf.DataMovement) { d.Status, d.Spec.Cancel = c.status, c.cancel })
			if got := AnswerOf(dm); !reflect.DeepEqual(got, c.want) {
				t.Errorf("\n%+v\n%+v", got, c.want)
			}
			if Completed(dm) != c.done {
				t.Errorf("completed %v", !c.done)
			}
		})
	}
}

func TestCommandAnswer(t *testing.T) {
	local(t)
	dm := &nnf.DataMovement{}
	// As the rabbit writes it.
	text := `{"status":{"state":"Running","startTime":"2025-04-01T16:46:40.535519Z","restarts":-1,"commandStatus":{
		"command":"mpirun dcp","progress":42,"elapsedTime":"1m30.250999s","lastMessage":"Copied 1\n","lastMessageTime":"2025-04-01T16:48:10.000000Z",
		"seconds":"90.2","items":7,"directories":1,"files":5,"links":1,"data":"1.5 GiB","rate":"17 MiB/s"}}}`
	if err := json.Unmarshal([]byte(text), dm); err != nil {
		t.Fatal(err)
	}
	want := &CommandAnswer{
		Command: "mpirun dcp", Progress: 42, ElapsedTime: "1m30.25s", LastMessage: "Copied 1\n", LastMessageTime: endedText,
		Seconds: "90.2", Items: 7, Directories: 1, Files: 5, Links: 1, Data: "1.5 GiB", Rate: "17 MiB/s",
	}
	got := AnswerOf(dm)
	if !reflect.DeepEqual(got.Command, want) || got.StartTime != beganText || got.Restarts != 0 {
		t.Errorf("%+v\n%+v", got, got.Command)
	}
	for d, want := range map[time.Duration]string{0: "", -time.Second: "", time.Microsecond: "0s", 3139 * time.Millisecond: "3.139s", 3 * time.Hour: "3h0m0s"} {
		c := &nnf.DataMovementCommandStatus{ElapsedTime: nnf.Duration{Duration: d}}
		if got := commandAnswer(c); got.ElapsedTime != want || got.Progress != 0 || got.LastMessageTime != "" {
			t.Errorf("%v: %+v", d, got)
		}
	}
}

func TestStarted(t *testing.T) {
	for _, c := range []struct {
		s    nnf.DataMovementStatus
		want bool
	}{{nnf.DataMovementStatus{}, false}, {nnf.DataMovementStatus{Message: "waits"}, false}, {nnf.DataMovementStatus{State: "Running"}, true},
		{nnf.DataMovementStatus{StartTime: began}, true}, {nnf.DataMovementStatus{Status: "Invalid"}, true}} {
		if Started(&nnf.DataMovement{Status: c.s}) != c.want {
			t.Errorf("%+v", c.s)
		}
	}
}

func TestOtherAnswers(t *testing.T) {
	local(t)
	if a := AnswerMissing(); a.State != StateUnknown || a.Result != ResultNotFound || a.Command != nil {
		t.Errorf("%+v", a)
	}
	a := AnswerCancelled(time.Now())
	if a.State != StateCompleted || a.Result != ResultCancelled || strings.Contains(a.EndTime, "m=") || a.EndTime == "" {
		t.Errorf("%+v", a)
	}
}
