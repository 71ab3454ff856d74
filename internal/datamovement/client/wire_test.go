package client

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

func TestMovement1(t *testing.T) {
	start := time.Date(2025, 4, 1, 11, 46, 36, 535519000, time.UTC)
	for name, tt := range map[string]struct {
		r    *pb.DataMovementStatusResponse
		want Movement
		kind Kind // with an empty state
	}{
		"pending": {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_PENDING, Status: pb.DataMovementStatusResponse_UNKNOWN_STATUS}, Movement{State: Pending}, 0},
		// Old daemons send the status 0, INVALID, while the copy runs.
		"running":       {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_RUNNING}, Movement{State: Running}, 0},
		"starting":      {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_STARTING}, Movement{State: Starting}, 0},
		"cancelling":    {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_CANCELLING}, Movement{State: Cancelling}, 0},
		"success":       {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_COMPLETED, Status: pb.DataMovementStatusResponse_SUCCESS}, Movement{State: Completed, Result: Success}, 0},
		"failed":        {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_COMPLETED, Status: pb.DataMovementStatusResponse_FAILED, Message: "x"}, Movement{State: Completed, Result: Failure, Message: "x"}, 0},
		"invalid":       {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_COMPLETED, Status: pb.DataMovementStatusResponse_INVALID}, Movement{State: Completed, Result: Refused}, 0},
		"cancelled":     {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_COMPLETED, Status: pb.DataMovementStatusResponse_CANCELLED}, Movement{State: Completed, Result: Cancelled}, 0},
		"missing":       {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_UNKNOWN_STATE, Status: pb.DataMovementStatusResponse_NOT_FOUND}, Movement{}, NotFound},
		"bad uid":       {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_UNKNOWN_STATE, Status: pb.DataMovementStatusResponse_INVALID, Message: "x"}, Movement{}, Invalid},
		"unknown":       {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_UNKNOWN_STATE, Status: pb.DataMovementStatusResponse_UNKNOWN_STATUS, Message: "x"}, Movement{State: Unknown, Message: "x"}, 0},
		"unknown state": {&pb.DataMovementStatusResponse{State: 42}, Movement{State: Unknown}, 0},
	} {
		got, err := movement1("u", tt.r)
		if e := (*Error)(nil); errors.As(err, &e) != (tt.want.State == "") || e != nil && e.Kind != tt.kind {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.State != tt.want.State || got.Result != tt.want.Result || got.Message != tt.want.Message {
			t.Errorf("%s: %+v", name, got)
		}
	}
	m, err := movement1("u", &pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_RUNNING, StartTime: pb.TimeText(start), CommandStatus: &pb.DataMovementCommandStatus{
		Command: "dcp", Progress: 7, ElapsedTime: "1m30.25s", LastMessage: "line\n", LastMessageTime: "yesterday",
	}})
	if err != nil || m.ID != "u" || m.Command != "dcp" || *m.Percent != 7 || m.Elapsed() != 90250*time.Millisecond || m.LastMessage != "line" ||
		m.LastMessageTime != nil || m.StartTime == nil || !m.StartTime.Equal(start) || m.EndTime != nil {
		t.Errorf("%+v %v", m, err)
	}
	// 0 can also mean unknown.
	if m, _ := movement1("u", &pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_RUNNING, CommandStatus: new(pb.DataMovementCommandStatus)}); m.Percent != nil {
		t.Errorf("%+v", m)
	}
}

func TestMovement2(t *testing.T) {
	for state := range pb2.MovementState_name {
		want := states2[pb2.MovementState(state)]
		if state == 0 {
			want = Unknown
		}
		if m := movement2(&pb2.MovementStatus{State: pb2.MovementState(state)}); m.State != want || want == "" {
			t.Errorf("state %d: %q", state, m.State)
		}
	}
	for result := range pb2.MovementResult_name {
		if m := movement2(&pb2.MovementStatus{Result: pb2.MovementResult(result)}); (m.Result == "") != (result == 0) {
			t.Errorf("result %d: %q", result, m.Result)
		}
	}
	m := movement2(&pb2.MovementStatus{EndTime: &timestamppb.Timestamp{Nanos: -5}})
	if m.EndTime != nil || m.Percent != nil {
		t.Errorf("%+v", m)
	}
}

func TestFromLastMessage(t *testing.T) {
	const unknown = -1
	for _, tt := range []struct {
		line, data string
		percent    int32
		rate, left string
	}{
		{"Copied 1.000 GiB (50%) in 3.139 secs (326.217 MiB/s) 3 secs left ...", "1.000 GiB", 50, "326.217 MiB/s", "3 secs"},
		{"Copied 0.000 B (0%) in 1.001 secs (0.000 B/s)", "0.000 B", 0, "0.000 B/s", ""},
		{"Copied 2.000 GiB (100%) in 6.755 secs (303.182 MiB/s) done", "2.000 GiB", 100, "303.182 MiB/s", ""},
		{"[2025-04-01] Copied 1.0 GiB (1%) in 1 secs (1.0 GiB/s) 7 mins left", "1.0 GiB", 1, "1.0 GiB/s", "7 mins"},
		{"2025-04-01 08:15:42,123 INFO rank 0: Copied 5 kB (2%)", "5 kB", 2, "", ""},
		{"Copied 1 GiB (50%) in 1 secs (1 MiB/s)\rCopied 2 GiB (75%) in 2 secs (2 MiB/s)", "2 GiB", 75, "2 MiB/s", ""},
		{"Copied 2 GiB (50%) in 2", "2 GiB", 50, "", ""},
		{"Copied 1 GiB (999%) in 1 secs (1 GiB/s)", "1 GiB", unknown, "1 GiB/s", ""},
		{"Copied 7 files", "", unknown, "", ""},
		{"Copied 7 Bytes", "", unknown, "", ""},
		{"NotCopied 7 B (1%)", "", unknown, "", ""},
		{"sent 12 bytes (5.1 kB/s)", "", unknown, "", ""},
		{"(9 GiB/s) 9 secs left; scanned (3%)", "", unknown, "", ""},
		{"(9 GiB/s) 9 secs left (3%) Copied 1 GiB in 1 secs", "1 GiB", unknown, "", ""},
		{"", "", unknown, "", ""},
	} {
		m := Movement{LastMessage: tt.line}
		m.fromLastMessage()
		percent := int32(unknown)
		if m.Percent != nil {
			percent = *m.Percent
		}
		if m.Data != tt.data || percent != tt.percent || m.Rate != tt.rate || m.Left != tt.left {
			t.Errorf("%q: %q %d %q %q, want %+v", tt.line, m.Data, percent, m.Rate, m.Left, tt)
		}
	}
	// Values that the daemon reports take precedence.
	known := int32(49)
	m := Movement{LastMessage: "Copied 1.000 GiB (50%) in 3.139 secs (326.217 MiB/s) 3 secs left ...", Rate: "9 GiB/s", Percent: &known}
	if m.fromLastMessage(); m.Rate != "9 GiB/s" || m.Data != "1.000 GiB" || *m.Percent != known {
		t.Errorf("%+v", m)
	}
}

// Real lines of two builds of dcp, with and without a time stamp. Amount, rate and, if
// present, time left are found in each line, with both versions of the protocol. The
// percentage is from the daemon, or else from the line.
func TestRealLines(t *testing.T) {
	text, err := os.ReadFile("testdata/dcp-progress-lines.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) < 2 {
		t.Fatalf("only %d lines", len(lines))
	}
	for _, line := range lines {
		part := func(pattern string) string {
			if m := regexp.MustCompile(pattern).FindStringSubmatch(line); m != nil {
				return m[1]
			}
			return ""
		}
		data, rate, left, inLine := part(`Copied (\S+ \S+) `), part(`\((\S+ \S+/s)\)`), part(`\) (\d+ secs) left`), part(`\((\d+)%\)`)
		if data == "" || rate == "" {
			t.Fatalf("the test cannot parse %q", line)
		}
		for _, daemon := range []int32{0, 49} {
			one, err := movement1("u", &pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_RUNNING,
				CommandStatus: &pb.DataMovementCommandStatus{Progress: daemon, LastMessage: line + "\n"}})
			if err != nil {
				t.Fatal(err)
			}
			status := &pb2.CommandStatus{LastMessage: line + "\n"}
			if daemon > 0 {
				status.Progress = &daemon
			}
			two := movement2(&pb2.MovementStatus{State: pb2.MovementState_MOVEMENT_STATE_RUNNING, CommandStatus: status})
			for version, m := range map[int]Movement{1: one, 2: two} {
				if m.Data != data || m.Rate != rate || m.Left != left {
					t.Errorf("version %d, %q: %q %q %q, want %q %q %q", version, line, m.Data, m.Rate, m.Left, data, rate, left)
				}
				switch known := daemon > 0 || inLine != ""; {
				case known != (m.Percent != nil):
					t.Errorf("version %d, daemon %d, %q: percent known %v", version, daemon, line, m.Percent != nil)
				case known && *m.Percent != 49: // also the value in the line
					t.Errorf("version %d, daemon %d, %q: %d%%", version, daemon, line, *m.Percent)
				}
			}
		}
	}
}

// Parsing a line of another program takes linear time, and the values cannot contain
// other text: they are short, and consist of digits, a dot and a unit.
func FuzzLastMessage(f *testing.F) {
	f.Add("Copied 1.000 GiB (50%) in 3.139 secs (326.217 MiB/s) 3 secs left ...")
	f.Add("\x1b]0;t\x07Copied 1 GiB\x1b[31m (50%) in 1 secs (1 \u202eGiB/s)")
	f.Add(strings.Repeat("Copied ", 200) + strings.Repeat("9", 200) + " GiB")
	figure := regexp.MustCompile(`^[0-9.]* ?[A-Za-z]*(/s)?$`)
	f.Fuzz(func(t *testing.T, line string) {
		m := Movement{LastMessage: line}
		m.fromLastMessage()
		for _, s := range []string{m.Data, m.Rate, m.Left} {
			if len(s) > 40 || !figure.MatchString(s) {
				t.Errorf("%q gives %q", line, s)
			}
		}
		if m.Percent != nil && (*m.Percent < 0 || *m.Percent > 100) {
			t.Errorf("%q gives %d%%", line, *m.Percent)
		}
	})
}
