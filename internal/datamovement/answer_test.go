package datamovement

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

type status = v1.DataMovementStatusResponse

var startTime, ended = nnf.NewMicroTime(time.Unix(1743526000, 535519000)), nnf.NewMicroTime(time.Unix(1743526090, 0))

// local sets the time zone for one test: version 1 has local times.
func local(t *testing.T) {
	was := time.Local
	t.Cleanup(func() { time.Local = was })
	time.Local = time.FixedZone("CDT", -5*3600)
}

const (
	startText = "2025-04-01 11:46:40.535519 -0500 CDT"
	endedText = "2025-04-01 11:48:10 -0500 CDT"
)

// A pending movement has a state and nothing else.
func TestStatusV1(t *testing.T) {
	local(t)
	empty := new(v1.DataMovementCommandStatus)
	for _, c := range []struct {
		name   string
		status nnf.DataMovementStatus
		cancel bool
		want   *status
		done   bool
	}{
		{"no status", nnf.DataMovementStatus{}, false, &status{State: v1.DataMovementStatusResponse_PENDING, Status: v1.DataMovementStatusResponse_UNKNOWN_STATUS}, false},
		{"pending with a message", nnf.DataMovementStatus{Message: "no storage"}, false, &status{State: v1.DataMovementStatusResponse_PENDING, Status: v1.DataMovementStatusResponse_UNKNOWN_STATUS}, false},
		{"cancelled before the start", nnf.DataMovementStatus{}, true, &status{State: v1.DataMovementStatusResponse_CANCELLING, Status: v1.DataMovementStatusResponse_UNKNOWN_STATUS}, false},
		{"state without a start", nnf.DataMovementStatus{State: "Running"}, false, &status{State: v1.DataMovementStatusResponse_PENDING, Status: v1.DataMovementStatusResponse_UNKNOWN_STATUS}, false},
		{"starting", nnf.DataMovementStatus{State: "Starting", StartTime: startTime}, false, &status{State: v1.DataMovementStatusResponse_STARTING, Status: v1.DataMovementStatusResponse_UNKNOWN_STATUS, StartTime: startText, CommandStatus: empty}, false},
		{"running", nnf.DataMovementStatus{State: "Running", StartTime: startTime}, false, &status{State: v1.DataMovementStatusResponse_RUNNING, Status: v1.DataMovementStatusResponse_UNKNOWN_STATUS, StartTime: startText, CommandStatus: empty}, false},
		{"no state", nnf.DataMovementStatus{StartTime: startTime}, false, &status{State: v1.DataMovementStatusResponse_UNKNOWN_STATE, Status: v1.DataMovementStatusResponse_UNKNOWN_STATUS, StartTime: startText, CommandStatus: empty}, false},
		{"being cancelled", nnf.DataMovementStatus{State: "Running", StartTime: startTime}, true, &status{State: v1.DataMovementStatusResponse_CANCELLING, Status: v1.DataMovementStatusResponse_UNKNOWN_STATUS, StartTime: startText, CommandStatus: empty}, false},
		{"success", nnf.DataMovementStatus{State: "Finished", Status: "Success", Message: "out\n", StartTime: startTime, EndTime: ended}, false,
			&status{State: v1.DataMovementStatusResponse_COMPLETED, Status: v1.DataMovementStatusResponse_SUCCESS, Message: "out\n", StartTime: startText, EndTime: endedText, CommandStatus: empty}, true},
		{"success in spite of cancel", nnf.DataMovementStatus{State: "Finished", Status: "Success", StartTime: startTime, EndTime: ended}, true,
			&status{State: v1.DataMovementStatusResponse_COMPLETED, Status: v1.DataMovementStatusResponse_SUCCESS, StartTime: startText, EndTime: endedText, CommandStatus: empty}, true},
		{"failed", nnf.DataMovementStatus{State: "Finished", Status: "Failed", StartTime: startTime, EndTime: ended}, false,
			&status{State: v1.DataMovementStatusResponse_COMPLETED, Status: v1.DataMovementStatusResponse_FAILED, StartTime: startText, EndTime: endedText, CommandStatus: empty}, true},
		{"cancelled", nnf.DataMovementStatus{State: "Finished", Status: "Cancelled", StartTime: startTime, EndTime: ended}, true,
			&status{State: v1.DataMovementStatusResponse_COMPLETED, Status: v1.DataMovementStatusResponse_CANCELLED, StartTime: startText, EndTime: endedText, CommandStatus: empty}, true},
		{"invalid, never started nor ended", nnf.DataMovementStatus{State: "Finished", Status: "Invalid", Message: "no profile"}, false,
			&status{State: v1.DataMovementStatusResponse_COMPLETED, Status: v1.DataMovementStatusResponse_INVALID, Message: "no profile", CommandStatus: empty}, true},
		{"finished without times", nnf.DataMovementStatus{State: "Finished", Status: "Failed"}, false, &status{State: v1.DataMovementStatusResponse_COMPLETED, Status: v1.DataMovementStatusResponse_FAILED, CommandStatus: empty}, true},
		{"unknown state", nnf.DataMovementStatus{State: "Pausing", StartTime: startTime}, false,
			&status{State: v1.DataMovementStatusResponse_UNKNOWN_STATE, Status: v1.DataMovementStatusResponse_UNKNOWN_STATUS, StartTime: startText, CommandStatus: empty, Message: `the rabbit reports state "Pausing", status "", unknown to this version of nnf-dm`}, false},
		{"unknown status", nnf.DataMovementStatus{State: "Finished", Status: "Partial\n", Message: "m", StartTime: startTime, EndTime: ended}, false,
			&status{State: v1.DataMovementStatusResponse_COMPLETED, Status: v1.DataMovementStatusResponse_UNKNOWN_STATUS, StartTime: startText, EndTime: endedText, CommandStatus: empty, Message: `m; the rabbit reports state "Finished", status "Partial\n", unknown to this version of nnf-dm`}, true},
		{"end without state", nnf.DataMovementStatus{StartTime: startTime, EndTime: ended}, false,
			&status{State: v1.DataMovementStatusResponse_UNKNOWN_STATE, Status: v1.DataMovementStatusResponse_UNKNOWN_STATUS, StartTime: startText, EndTime: endedText, CommandStatus: empty}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dm := movement(func(d *nnf.DataMovement) { d.Status, d.Spec.Cancel = c.status, c.cancel })
			if got := StatusV1(dm); !proto.Equal(got, c.want) {
				t.Errorf("\n%v\n%v", got, c.want)
			}
			if Completed(dm) != c.done {
				t.Errorf("completed %v", !c.done)
			}
		})
	}
}

// A movement that was cancelled and deleted before its start has ended, although the rabbit still keeps
// the object: a daemon that was restarted reports the same result as before.
func TestCancelledAndDeleted(t *testing.T) {
	local(t)
	at := metav1.NewTime(ended.Time)
	dm := movement(func(d *nnf.DataMovement) { d.Spec.Cancel, d.DeletionTimestamp = true, &at })
	if got := StatusV1(dm); !Completed(dm) || !proto.Equal(got, CancelledV1(ended.Time)) || got.EndTime != endedText {
		t.Errorf("completed %v, %v", Completed(dm), got)
	}
	if got := StatusV2(dm); got.State != v2.MovementState_MOVEMENT_STATE_COMPLETED || got.Result != v2.MovementResult_MOVEMENT_RESULT_CANCELLED || !got.EndTime.AsTime().Equal(ended.Time) {
		t.Errorf("%v", got)
	}
	for name, change := range map[string]func(*nnf.DataMovement){
		"not cancelled": func(d *nnf.DataMovement) { d.Spec.Cancel = false },
		"not deleted":   func(d *nnf.DataMovement) { d.DeletionTimestamp = nil },
		"running":       func(d *nnf.DataMovement) { d.Status.State, d.Status.StartTime = nnf.MovementRunning, startTime },
	} {
		other := *dm
		if change(&other); Completed(&other) {
			t.Errorf("%s: completed", name)
		}
	}
}

func TestCommandStatus(t *testing.T) {
	local(t)
	dm := &nnf.DataMovement{}
	// In the rabbit's format.
	text := `{"status":{"state":"Running","startTime":"2025-04-01T16:46:40.535519Z","restarts":-1,"commandStatus":{
		"command":"mpirun dcp","progress":42,"elapsedTime":"1m30.250999s","lastMessage":"Copied 1\n","lastMessageTime":"2025-04-01T16:48:10.000000Z",
		"seconds":"90.2","items":7,"directories":1,"files":5,"links":1,"data":"1.5 GiB","rate":"17 MiB/s"}}}`
	if err := json.Unmarshal([]byte(text), dm); err != nil {
		t.Fatal(err)
	}
	want := &v1.DataMovementCommandStatus{Command: "mpirun dcp", Progress: 42, ElapsedTime: "1m30.25s", LastMessage: "Copied 1\n", LastMessageTime: endedText}
	if got := StatusV1(dm); !proto.Equal(got.CommandStatus, want) || got.StartTime != startText {
		t.Errorf("%v", got)
	}
	got := StatusV2(dm)
	if c := got.CommandStatus; c.Command != "mpirun dcp" || c.GetProgress() != 42 || c.ElapsedTime.AsDuration() != 90*time.Second+250999*time.Microsecond || c.LastMessage != "Copied 1\n" ||
		c.LastMessageTime.AsTime().Unix() != ended.Unix() || c.Seconds != "90.2" || c.GetItems() != 7 || c.GetDirectories() != 1 || c.GetFiles() != 5 || c.GetLinks() != 1 ||
		c.Data != "1.5 GiB" || c.Rate != "17 MiB/s" || got.Restarts != 0 {
		t.Errorf("%v", got)
	}
	for d, want := range map[time.Duration]string{0: "", -time.Second: "", time.Microsecond: "0s", 3139 * time.Millisecond: "3.139s", 3 * time.Hour: "3h0m0s"} {
		dm.Status.CommandStatus = &nnf.DataMovementCommandStatus{ElapsedTime: nnf.Duration{Duration: d}}
		if got := StatusV1(dm).CommandStatus; got.ElapsedTime != want || got.Progress != 0 || got.LastMessageTime != "" {
			t.Errorf("%v: %v", d, got)
		}
	}
}

func TestStarted(t *testing.T) {
	for _, c := range []struct {
		s    nnf.DataMovementStatus
		want bool
	}{{nnf.DataMovementStatus{}, false}, {nnf.DataMovementStatus{Message: "waits"}, false}, {nnf.DataMovementStatus{State: "Running"}, true},
		{nnf.DataMovementStatus{StartTime: startTime}, true}, {nnf.DataMovementStatus{Status: "Invalid"}, true}} {
		if Started(&nnf.DataMovement{Status: c.s}) != c.want {
			t.Errorf("%+v", c.s)
		}
	}
}

func TestCancelled(t *testing.T) {
	local(t)
	if a := CancelledV1(time.Now()); a.State != v1.DataMovementStatusResponse_COMPLETED || a.Status != v1.DataMovementStatusResponse_CANCELLED || strings.Contains(a.EndTime, "m=") || a.EndTime == "" {
		t.Errorf("%v", a)
	}
	dm := movement()
	if s := CancelledV2(dm, ended.Time); s.State != 5 || s.Result != 4 || s.Message == "" || s.Uid != dm.Name || s.Source != dm.Spec.Source.Path || s.EndTime.AsTime().Unix() != ended.Unix() {
		t.Errorf("%v", s)
	}
	if s := DeletedV2("u"); s.State != 5 || s.Result != 5 || s.Uid != "u" {
		t.Errorf("%v", s)
	}
}

func TestStatusV2(t *testing.T) {
	dm := movement(label(api.LabelBatch, "batch-1"))
	if s := StatusV2(dm); s.State != v2.MovementState_MOVEMENT_STATE_PENDING || s.Result != 0 || s.Uid != dm.Name || s.BatchUid != "batch-1" || s.CommandStatus != nil || s.StartTime != nil ||
		s.Source != dm.Spec.Source.Path || s.Destination != dm.Spec.Destination.Path {
		t.Errorf("%v", s)
	}
	dm.Status.Message = "waits"
	if s := StatusV2(dm); s.Message != "waits" {
		t.Errorf("%v", s)
	}
	if err := json.Unmarshal([]byte(`{"state":"Running","startTime":"2025-04-01T16:46:40.5Z","restarts":1,"message":"m",
		"commandStatus":{"command":"c","elapsedTime":"1.5s","progress":0,"files":3,"data":"1 B","lastMessage":"l"}}`), &dm.Status); err != nil {
		t.Fatal(err)
	}
	s := StatusV2(dm)
	c := s.CommandStatus
	if s.State != v2.MovementState_MOVEMENT_STATE_RUNNING || s.Result != 0 || s.Restarts != 1 || s.Message != "m" || s.StartTime.AsTime().Unix() != 1743526000 || s.EndTime != nil {
		t.Errorf("%v", s)
	}
	if c.Progress == nil || *c.Progress != 0 || c.GetFiles() != 3 || c.Items != nil || c.ElapsedTime.AsDuration() != 1500*time.Millisecond || c.Data != "1 B" || c.LastMessageTime != nil {
		t.Errorf("%v", c)
	}
	for status, want := range map[string]v2.MovementResult{"Success": 1, "Failed": 2, "Invalid": 3, "Cancelled": 4, "": 0, "New": 0} {
		dm.Status.State, dm.Status.Status = "Finished", status
		if s := StatusV2(dm); s.Result != want || s.State != v2.MovementState_MOVEMENT_STATE_COMPLETED {
			t.Errorf("%q: %v", status, s)
		}
	}
}
