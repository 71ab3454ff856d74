package node

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const (
	lvsLine = `lvs --nolock --config 'log{command_names=0 prefix="  "}' --reportformat json -o vg_name,lv_name,lv_attr --select vg_name=v_0`
	vgsLine = `vgs --nolock --config 'log{command_names=0 prefix="  "}' --reportformat json -o vg_name --select vg_name=v_0`
	lvsOut  = `  {
      "report": [
          {
              "lv": [
                  {"vg_name":"v_0", "lv_name":"lv-0", "lv_attr":"-wi-a-----"},
                  {"vg_name":"v_0", "lv_name":"lv-1", "lv_attr":"-wi-------"},
                  {"vg_name":"other", "lv_name":"lv-0", "lv_attr":"-wi-ao----"}
              ]
          }
      ]
  }`
)

func TestLVs(t *testing.T) {
	f := &fake{answers: map[string]string{lvsLine: lvsOut}}
	lvs, err := (&Node{Exec: f}).LVs(t.Context(), "v_0", time.Minute)
	want := []LV{{"v_0", "lv-0", "-wi-a-----"}, {"v_0", "lv-1", "-wi-------"}}
	if err != nil || !slices.Equal(lvs, want) {
		t.Errorf("got %v, %v", lvs, err)
	}
	if !lvs[0].Active() || lvs[1].Active() {
		t.Error("activity")
	}
	if f.last.Timeout != time.Minute {
		t.Error("the time limit was lost")
	}
}

func TestLVActive(t *testing.T) {
	for attr, want := range map[string]bool{"-wi-a-----": true, "-wi-ao----": true, "-wi-s-----": false, "": false, "-wi-": false, "-wi-a": true} {
		if got := (LV{Attr: attr}).Active(); got != want {
			t.Errorf("%q: %v", attr, got)
		}
	}
}

// The name of the group is part of a selection, so other texts are refused.
func TestVGNames(t *testing.T) {
	f := &fake{}
	n := &Node{Exec: f}
	for _, vg := range []string{"", "-x", "a b", "a||vg_name!=x", "a\n", ".", "..", "a/b", "é", strings.Repeat("x", 128)} {
		if _, err := n.LVs(t.Context(), vg, 0); err == nil {
			t.Errorf("lvs of %q", vg)
		}
		if _, err := n.HasVG(t.Context(), vg, 0); err == nil {
			t.Errorf("vgs of %q", vg)
		}
		if err := n.WaitVG(t.Context(), vg, time.Hour, 0); err == nil {
			t.Errorf("wait for %q", vg)
		}
	}
	if len(f.lines) > 0 {
		t.Errorf("ran %q", f.lines)
	}
	if err := checkVG("2c5d0000-0000-4000-8000-00000000000b_0"); err != nil {
		t.Error(err)
	}
}

func TestHasVG(t *testing.T) {
	for out, want := range map[string]bool{
		`{"report":[{"vg":[{"vg_name":"v_0"}]}]}`:  true,
		`{"report":[{"vg":[{"vg_name":"v_00"}]}]}`: false,
		`{"report":[{"vg":[]}]}`:                   false,
		`{"report":[]}`:                            false,
	} {
		n := &Node{Exec: &fake{answers: map[string]string{vgsLine: out}}}
		if got, err := n.HasVG(t.Context(), "v_0", 0); err != nil || got != want {
			t.Errorf("%s: %v, %v", out, got, err)
		}
	}
}

func TestBadToolOutput(t *testing.T) {
	long := "  WARNING: something is wrong " + strings.Repeat("x", 1000)
	n := &Node{Exec: &fake{answers: map[string]string{lvsLine: long, vgsLine: ""}}}
	_, err := n.LVs(t.Context(), "v_0", 0)
	if err == nil || !strings.HasPrefix(err.Error(), "lvs did not print") || !strings.Contains(err.Error(), "WARNING: something") || len(err.Error()) > 400 {
		t.Errorf("lvs: %v", err)
	}
	if _, err := n.HasVG(t.Context(), "v_0", 0); err == nil || !strings.HasPrefix(err.Error(), "vgs did not print") {
		t.Errorf("vgs: %v", err)
	}
}

func TestFailingTool(t *testing.T) {
	n := &Node{Exec: &fake{errors: map[string]error{lvsLine: ExitStatus(5)}}}
	if _, err := n.LVs(t.Context(), "v_0", 0); exitStatus(err) != 5 {
		t.Errorf("got %v", err)
	}
}

// runs is a Runner that calls a function.
type runs func(ctx context.Context, c Command) (Result, error)

func (f runs) Run(ctx context.Context, c Command) (Result, error) { return f(ctx, c) }

func TestWaitVG(t *testing.T) {
	const yes, no = `{"report":[{"vg":[{"vg_name":"v_0"}]}]}`, `{"report":[{"vg":[]}]}`
	for _, tt := range []struct {
		name        string
		limit       time.Duration
		appears     time.Duration
		fail        error
		calls       int
		took        time.Duration
		is          error
		text        string
		cancelAfter time.Duration
	}{
		{name: "there", limit: time.Second, calls: 1},
		{name: "late", limit: time.Second, appears: 250 * time.Millisecond, calls: 4, took: 300 * time.Millisecond},
		{name: "at the last query", limit: 250 * time.Millisecond, appears: 250 * time.Millisecond, calls: 4, took: 250 * time.Millisecond},
		{name: "never", limit: time.Second, appears: time.Hour, calls: 11, took: time.Second, is: ErrTimeoutVG, text: "timeout waiting for VG v_0"},
		{name: "one query", appears: time.Hour, calls: 1, is: ErrTimeoutVG},
		{name: "fails repeatedly", limit: 100 * time.Millisecond, fail: ExitStatus(5), calls: 2, took: 100 * time.Millisecond, is: ExitStatus(5), text: "timeout waiting for VG v_0: "},
		{name: "no such program", limit: time.Hour, fail: exec.ErrNotFound, calls: 1, is: exec.ErrNotFound},
		{name: "cancelled", limit: time.Hour, appears: 2 * time.Hour, cancelAfter: 150 * time.Millisecond, calls: 2, took: 150 * time.Millisecond, is: context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, calls := time.Now(), 0
				n := &Node{Exec: runs(func(context.Context, Command) (Result, error) {
					calls++
					if tt.fail != nil {
						return Result{}, &CommandError{Err: tt.fail}
					}
					if time.Since(begin) >= tt.appears {
						return Result{Stdout: yes}, nil
					}
					return Result{Stdout: no}, nil
				})}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.cancelAfter > 0 {
					time.AfterFunc(tt.cancelAfter, cancel)
				}
				err := n.WaitVG(ctx, "v_0", tt.limit, time.Second)
				if !errors.Is(err, tt.is) || err != nil && !strings.HasPrefix(err.Error(), tt.text) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(begin); calls != tt.calls || took != tt.took {
					t.Errorf("%d calls in %v", calls, took)
				}
			})
		})
	}
}

func TestLockVG(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Node{}
		unlock, err := n.LockVG(t.Context(), "a")
		must(t, err)
		other, err := n.LockVG(t.Context(), "b") // another group does not wait
		must(t, err)
		other()

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.LockVG(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "VG a") {
			t.Errorf("while it is held: %v", err)
		}

		var wg sync.WaitGroup
		inside, most := 0, 0
		for range 20 {
			wg.Go(func() {
				unlock, err := n.LockVG(t.Context(), "a")
				must(t, err)
				inside++
				most = max(most, inside)
				<-time.After(time.Second) // of the bubble's clock
				inside--
				unlock()
				unlock() // a second call has no effect
			})
		}
		synctest.Wait()
		if most != 0 {
			t.Error("two callers hold the lock")
		}
		unlock()
		wg.Wait()
		if most != 1 {
			t.Errorf("%d concurrent callers", most)
		}
		if len(n.locks.locks) != 0 {
			t.Errorf("%d locks are kept", len(n.locks.locks))
		}
	})
}

func FuzzLVS(f *testing.F) {
	for _, s := range []string{lvsOut, `{"report":[{"lv":[]}]}`, `{"report":[]}`, `{}`, `null`, `[]`, ``, `{"report":[{"lv":[{"lv_attr":"x"}]}],"log":[]}`, `{"report":[{"lv":null}]}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		lvs, err := parseLVS(s)
		if err != nil && (lvs != nil || !strings.HasPrefix(err.Error(), "lvs did not print")) {
			t.Errorf("%v, %v", lvs, err)
		}
		for _, l := range lvs {
			if l.Active() && len(l.Attr) < 5 {
				t.Errorf("%q is active", l.Attr)
			}
		}
	})
}

func FuzzVGS(f *testing.F) {
	for _, s := range []string{`{"report":[{"vg":[{"vg_name":"v"}]}]}`, `{"report":[{"vg":[{}]}]}`, `{"report":{}}`, `null`, ``, `{"report":[{"vg":[{"vg_name":1}]}]}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		names, err := parseVGS(s)
		if err != nil && (names != nil || !strings.HasPrefix(err.Error(), "vgs did not print")) {
			t.Errorf("%v, %v", names, err)
		}
	})
}

// The texts in testdata/lvm are the standard output of lvm2 2.03.16, with exit status 0,
// if the report goes to standard output, too.

const cleanVGS = `{"report":[{"vg":[{"vg_name":"v_0"},{"vg_name":"2c5d0000-0000-4000-8000-00000000000b_0"}]}]}`

// A report on a separate descriptor is read, whatever the messages are.
func TestReportBesideMessages(t *testing.T) {
	texts, err := filepath.Glob("testdata/lvm/*.txt")
	must(t, err)
	if len(texts) == 0 {
		t.Fatal("no test data")
	}
	for _, file := range texts {
		out, err := os.ReadFile(file)
		must(t, err)
		n := &Node{Exec: runs(func(_ context.Context, c Command) (Result, error) {
			if c.Report != "LVM_REPORT_FD" || !slices.Contains(c.Argv, `log{command_names=0 prefix="  "}`) {
				t.Errorf("asked by %q with the report on %q", c.Argv, c.Report)
			}
			return Result{Stdout: string(out), Report: cleanVGS}, nil
		})}
		for _, vg := range []string{"v_0", "2c5d0000-0000-4000-8000-00000000000b_0"} {
			if has, err := n.HasVG(t.Context(), vg, 0); err != nil || !has {
				t.Errorf("%s: %v, %v", file, has, err)
			}
		}
		if has, err := n.HasVG(t.Context(), "v_1", 0); err != nil || has {
			t.Errorf("%s: another group: %v, %v", file, has, err)
		}
	}
}

// If a tool does not support the descriptor, messages that cannot be JSON are dropped, and
// any other message makes the report invalid. No message is used as data.
func TestReportAmongMessages(t *testing.T) {
	data := func(name string) string {
		b, err := os.ReadFile("testdata/lvm/" + name + ".txt")
		must(t, err)
		return string(b)
	}
	for _, tt := range []struct {
		name, out string
		has       bool
		bad       string
	}{
		{"clean", cleanVGS, true, ""},
		{"a message inside", data("message-inside-json"), true, ""},
		{"a retry inside", data("retry-inside-json"), true, ""},
		{"before and after", "  Retrying metadata scan.\n" + cleanVGS + "\n  Done.\n", true, ""},
		{"command names", data("command-names"), false, "did not print the expected JSON"},
		{"a message with quotes", strings.Replace(data("retry-inside-json"), "Retrying", `Retrying "v_0"`, 1), false, "did not print the expected JSON"},
		{"a message that looks like a row", `  Found {"vg_name":"v_0"} in the archive.` + "\n" + `{"report":[{"vg":[]}]}`, false, "did not print the expected JSON"},
		{"nothing but a message", "  Retrying metadata scan.\n", false, "Retrying metadata scan"},
		{"nothing", "", false, "did not print the expected JSON"},
		{"half a report", "{\"report\":[\n", false, "did not print the expected JSON"},
	} {
		n := &Node{Exec: runs(func(context.Context, Command) (Result, error) { return Result{Stdout: tt.out}, nil })}
		has, err := n.HasVG(t.Context(), "v_0", 0)
		if has != tt.has || (err == nil) != (tt.bad == "") || err != nil && !strings.Contains(err.Error(), tt.bad) {
			t.Errorf("%s: %v, %v", tt.name, has, err)
		}
	}
}

// The exit status may be caused by another group, so a report with our group is used.
func TestReportOfAFailedTool(t *testing.T) {
	const ours, empty = `{"report":[{"lv":[{"vg_name":"v_0","lv_name":"lv-0","lv_attr":"-wi-a-----"}]}]}`, `{"report":[{"lv":[]}]}`
	for _, tt := range []struct {
		name   string
		res    Result
		err    error
		timed  bool
		volume bool
		texts  []string // of the error
	}{
		{name: "another group is broken", res: Result{Report: ours, Stderr: "  Failed to read metadata of v_9.\n"}, err: ExitStatus(5), volume: true},
		{name: "on standard output", res: Result{Stdout: ours, Stderr: "  Failed to read metadata of v_9.\n"}, err: ExitStatus(5), volume: true},
		{name: "without ours", res: Result{Report: empty, Stderr: "  Failed\n"}, err: ExitStatus(5), texts: []string{"command: lvs", "exit status 5"}},
		{name: "no report", res: Result{Stderr: "  lvmlockd is not running\n"}, err: ExitStatus(5), texts: []string{"command: lvs", "lvmlockd is not running", "exit status 5"}},
		{name: "unreadable and failed", res: Result{Report: "{\"rep", Stderr: "  no luck\n"}, err: ExitStatus(5), texts: []string{"no luck", "exit status 5", `starts with "{\"rep"`}},
		{name: "unreadable", res: Result{Report: "{\"rep", Stderr: "  no luck\n"}, texts: []string{"no luck", `starts with "{\"rep"`}},
		{name: "killed", res: Result{Report: ours}, err: errors.New("signal: killed"), texts: []string{"signal: killed"}},
		{name: "timed out", res: Result{Report: ours}, err: ExitStatus(0), timed: true, texts: []string{"exit status 0"}},
	} {
		n := &Node{Exec: runs(func(_ context.Context, c Command) (Result, error) {
			if tt.err == nil {
				return tt.res, nil
			}
			return tt.res, &CommandError{Line: c.String(), Stdout: tt.res.Stdout, Stderr: tt.res.Stderr, Err: tt.err, TimedOut: tt.timed}
		})}
		lvs, err := n.LVs(t.Context(), "v_0", 0)
		if (err == nil) != (len(tt.texts) == 0) || (err == nil && len(lvs) == 1) != tt.volume {
			t.Errorf("%s: %v, %v", tt.name, lvs, err)
		}
		for _, text := range tt.texts {
			if err != nil && !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %q is not in %v", tt.name, text, err)
			}
		}
	}
}

// A message that is printed every time is logged once, even if its numbers differ.
func TestMessagesAreLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	message := ""
	n := &Node{Log: slog.New(slog.NewTextHandler(&log, nil)), Exec: runs(func(context.Context, Command) (Result, error) {
		return Result{Stdout: message, Report: cleanVGS}, nil
	})}
	for _, step := range []struct {
		message string
		want    int
	}{
		{"", 0}, {"  Retrying metadata scan.\n\n", 1}, {"  Retrying metadata scan.\n", 1},
		{"  8303 files\n", 2}, {"  8304 files\n", 2}, {"", 2}, {"  8304 files\n", 2}, {"  bad\x1b[2J\n  more\n", 3},
	} {
		message = step.message
		// A message is logged once for all callers.
		if has, err := n.For(Caller{}).HasVG(t.Context(), "v_0", 0); err != nil || !has {
			t.Fatal(has, err)
		}
		if got := strings.Count(log.String(), "level=WARN"); got != step.want {
			t.Errorf("%q: %d records", message, got)
		}
	}
	if !strings.Contains(log.String(), "bad?[2J; more") {
		t.Errorf("log: %s", log.String())
	}
	for i := range 3 * messagesMost {
		n.messages.fresh("lvs", strings.Repeat("x", i))
		if len(n.messages.seen) > messagesMost {
			t.Fatalf("%d messages are recorded", len(n.messages.seen))
		}
	}
}

// WaitVG does not retry if a command hangs.
func TestWaitVGStopsAtHangingCommand(t *testing.T) {
	for _, cause := range []error{ErrHangs, &CommandError{Line: "vgs", Err: errSurvived, PID: 4711, TimedOut: true}} {
		calls := 0
		n := &Node{Exec: runs(func(context.Context, Command) (Result, error) { calls++; return Result{}, cause })}
		if err := n.WaitVG(t.Context(), "v_0", time.Hour, 0); !errors.Is(err, cause) || calls != 1 {
			t.Errorf("%d calls, %v", calls, err)
		}
	}
}

// A real program that writes its report to the given file.
func TestExecReport(t *testing.T) {
	e := &Exec{}
	c := Command{Argv: []string{"sh", "-c", `echo message; echo trouble >&2; echo "report $1" >&"$LVM_REPORT_FD"; cat; exit 5`, "sh", "one"}, Report: lvmReportFD, Input: []byte("input")}
	res, err := e.Run(t.Context(), c)
	if exitStatus(err) != 5 || res.Report != "report one\n" || res.Stdout != "message\ninput" || res.Stderr != "trouble\n" {
		t.Errorf("%+v, %v", res, err)
	}
	c.Argv[2], c.Capture = `head -c 100000 /dev/zero | tr '\0' x >&"$LVM_REPORT_FD"`, 1000
	if res, err = e.Run(t.Context(), c); err != nil || !strings.Contains(res.Report, " bytes left out …") || len(res.Report) > 1100 || res.Stdout != "" {
		t.Errorf("%d bytes, %v", len(res.Report), err)
	}
	// A child of the program that keeps the descriptor open delays Run only briefly.
	bounded(t, time.Second, func() {
		res, err = e.Run(t.Context(), Command{Argv: []string{"sh", "-c", `echo x >&"$LVM_REPORT_FD"; sleep 5 >/dev/null 2>&1 &`}, Report: lvmReportFD})
		if err != nil || res.Report != "x\n" {
			t.Errorf("%+v, %v", res, err)
		}
	})
	res, err = e.Run(t.Context(), Command{Argv: []string{"sh", "-c", `echo "report on $LVM_REPORT_FD"; [ ! -e /proc/$$/fd/3 ]`}})
	if err != nil || res.Stdout != "report on \n" {
		t.Errorf("without a report: %q, %v", res.Stdout, err)
	}
}
