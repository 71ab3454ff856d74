package record

import (
	"errors"
	"os"
	"testing"
	"time"
)

func TestFailedUpdate(t *testing.T) {
	d := Dir(t.TempDir())
	if err := d.Update(func(s *State) error { s.Locks = []string{"a"}; return nil }); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	if err := d.Update(func(s *State) error { s.Locks = nil; return refused }); !errors.Is(err, refused) {
		t.Errorf("%v", err)
	}
	s, err := d.Load()
	if err != nil || len(s.Locks) != 1 {
		t.Errorf("%+v %v", s, err)
	}
	if err := os.WriteFile(d.path("state.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Load(); err == nil {
		t.Error("accepted an invalid state")
	}
}

// A killed call has only its first line, which may be incomplete.
func TestCallsOfKilledPrograms(t *testing.T) {
	d := Dir(t.TempDir())
	if calls, err := d.Calls(); err != nil || len(calls) != 0 {
		t.Errorf("%v %v", calls, err)
	}
	start := Call{ID: "1", Tool: "lvs", Exit: -1, Start: time.Now()}
	end := start
	end.End, end.Exit = time.Now(), 3
	for _, c := range []Call{start, {ID: "2", Tool: "vgs", Exit: -1}, end} {
		if err := d.Append(c); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(d.LogPath(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(`{"id":"3","to`)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	calls, err := d.Calls()
	if err != nil || len(calls) != 2 || calls[0].Exit != 3 || calls[1].Exit != -1 || !calls[1].End.IsZero() {
		t.Errorf("%+v %v", calls, err)
	}
}

func TestTake(t *testing.T) {
	d := Dir(t.TempDir())
	err := d.Update(func(s *State) error {
		s.Faults = []*Fault{{Tool: "lvs", Match: "-o all", Times: 1, Exit: 1}, {Tool: "lvs", Skip: 1, Exit: 2}}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct {
		tool string
		args []string
		exit int // 0: no fault
	}{
		{"vgs", []string{"-o", "all"}, 0},
		{"lvs", []string{"-o", "all"}, 1},
		{"lvs", []string{"-o", "all"}, 0}, // the first fault is used up, the second skips one call
		{"lvs", nil, 2},
		{"lvs", nil, 2},
	} {
		f, err := d.Take(tt.tool, tt.args)
		if err != nil || (f == nil) != (tt.exit == 0) || (f != nil && f.Exit != tt.exit) {
			t.Errorf("%d: %+v %v, want exit %d", i, f, err, tt.exit)
		}
	}
}

func TestVisible(t *testing.T) {
	now := time.Now()
	s := &State{Namespaces: []*Namespace{{NQN: "n", NSID: 1, NeedsRescan: true}, {NQN: "n", NSID: 2, Appears: now}}}
	for _, tt := range []struct {
		name string
		v    Volume
		want bool
	}{
		{"plain", Volume{}, true},
		{"later", Volume{Appears: now.Add(1)}, false},
		{"now", Volume{Appears: now}, true},
		{"no such namespace", Volume{NQN: "x", NSID: 1}, true},
		{"namespace missing", Volume{NQN: "n", NSID: 1}, false},
		{"namespace present", Volume{NQN: "n", NSID: 2}, true},
	} {
		if got := s.Visible(&tt.v, now); got != tt.want {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
}
