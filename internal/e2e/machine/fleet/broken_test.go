package fleet

import (
	"bytes"
	"context"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// run is a running nnf-deploy.
type run struct {
	f        *Fleet
	cmd      *exec.Cmd
	out, err bytes.Buffer
	done     chan struct{}
}

func (f *Fleet) start(ctx context.Context, verb string, args ...string) *run {
	f.t.Helper()
	r := &run{f: f, done: make(chan struct{})}
	r.cmd = f.Command(ctx, f.program(), f.arguments(verb, args...)...)
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.err
	if err := r.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	go func() {
		defer close(r.done)
		_ = r.cmd.Wait() // wait returns the exit code
	}()
	f.t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.done
	})
	return r
}

// wait waits until nnf-deploy exits and returns the result.
func (r *run) wait() Result {
	r.f.t.Helper()
	select {
	case <-r.done:
	case <-time.After(2 * time.Minute):
		r.f.t.Fatalf("nnf-deploy does not exit\n%s%s", &r.out, &r.err)
	}
	return Result{Code: r.cmd.ProcessState.ExitCode(), Stdout: r.out.String(), Stderr: r.err.String()}
}

// until waits for a condition while nnf-deploy is running.
func (r *run) until(what string, is func() bool) {
	r.f.t.Helper()
	wait.Within(r.f.t, 2*time.Minute, what, func() bool {
		select {
		case <-r.done:
			r.f.t.Fatalf("nnf-deploy has exited before %s\n%s%s", what, &r.out, &r.err)
		default:
		}
		return is()
	})
}

func (r *run) signal(s syscall.Signal) func() {
	return func() {
		r.f.t.Helper()
		if err := r.cmd.Process.Signal(s); err != nil {
			r.f.t.Error(err)
		}
	}
}

// switching reports whether a switch runs on the node.
func (n *Node) switching() bool {
	_, code, err := n.Run(n.Context(), "pgrep -f /var/lib/nnf-deploy/stage/switch.sh")
	return err == nil && code == 0
}

// settled waits until no run changes the node.
func (n *Node) settled() {
	n.Await("no run changes the node", "[ ! -e /var/lib/nnf-deploy/lock ] || flock -n /var/lib/nnf-deploy/lock true")
}

// Whatever stops a run at any time, each node then has the old or the new release, its daemons
// run, and the next run completes the installation.
func TestBrokenRuns(t *testing.T) {
	f := New(t, 3)
	older, newer := f.Releases()
	f.Distribution(f.Nodes...)
	f.Nodes[0].KillSessionProcesses()
	expect(t, f.DeployJSON("install", older.PackageArguments()...), 0, all(f.Nodes, "ok"))
	if t.Failed() {
		return
	}
	start := func(f *Fleet, r *run) {
		r.until("the first bytes", func() bool { return f.Nodes[0].line.delivered.Load() > 0 })
	}
	upload := func(f *Fleet, r *run) {
		r.until("the upload", func() bool { return f.Nodes[0].line.delivered.Load() > 2<<20 })
	}
	change := func(f *Fleet, r *run) { r.until("the switch", f.Nodes[0].switching) }
	interrupt := func(_ *Fleet, r *run) { r.signal(syscall.SIGINT)() }
	kill := func(_ *Fleet, r *run) { r.signal(syscall.SIGKILL)() }
	cut := func(f *Fleet, _ *run) {
		for _, n := range f.Nodes {
			f.Set(n, Faults{Dead: true})
		}
	}
	// As if the node went down: all processes of the switch are killed.
	crash := func(f *Fleet, _ *run) {
		f.Nodes[0].Await("the switch is dead", "u=$(systemctl list-units --plain --no-legend 'run-*.scope' | cut -d' ' -f1); [ -n \"$u\" ] && systemctl kill -s KILL $u")
	}
	twice := func(f *Fleet, r *run) {
		interrupt(f, r)
		wait.Pass(f.t, 300*time.Millisecond, "the time between two interrupts")
		interrupt(f, r)
	}
	for _, round := range []struct {
		name  string
		when  func(*Fleet, *run)
		what  func(*Fleet, *run)
		code  int
		mixed bool // only the next run repairs the node
	}{
		{"Ctrl-C at the start", start, interrupt, 130, false},
		{"Ctrl-C during the upload", upload, interrupt, 130, false},
		{"Ctrl-C during the switch", change, interrupt, 130, false},
		{"Ctrl-C twice during the switch", change, twice, 130, false},
		{"killed during the upload", upload, kill, -1, false},
		{"killed during the switch", change, kill, -1, false},
		{"connections broken during the upload", upload, cut, 1, false},
		{"connections broken during the switch", change, cut, 1, false},
		{"switch killed on the node", change, crash, 1, true},
	} {
		t.Run(round.name, func(t *testing.T) {
			f := f.For(t)
			next := newer
			if f.Nodes[0].Release(newer) == newer.Version {
				next = older
			}
			for _, n := range f.Nodes {
				f.Set(n, Faults{Rate: 8 << 20})
			}
			r := f.start(t.Context(), "install", append(next.PackageArguments(), "--parallel", "2", "-o", "json")...)
			round.when(f, r)
			round.what(f, r)
			end := r.wait()
			if end.Code != round.code {
				t.Errorf("exit code %d, want %d\n%s%s", end.Code, round.code, end.Stdout, end.Stderr)
			}
			answer, err := f.parse(end)
			if err != nil && round.code >= 0 {
				t.Error(err)
			}
			for _, n := range f.Nodes {
				n.settled()
				got := n.Release(older, newer)
				f.Set(n, Faults{})
				result := answer.Nodes[n.Name].Result
				t.Logf("%s has %s: %s", n.Name, got, result)
				if new := got == next.Version; result == "ok" && !new || slices.Contains([]string{"skipped", "interrupted"}, result) && new {
					t.Errorf("the result of %s is %s, but it has %s: %+v", n.Name, result, got, answer.Nodes[n.Name])
				}
				if round.mixed && n == f.Nodes[0] {
					continue
				}
				if got != older.Version && got != newer.Version {
					t.Errorf("%s has %s", n.Name, got)
				}
				if state := n.Property("clientmountd", "ActiveState") + " " + n.Property("nnf-dm.socket", "ActiveState"); state != "active active" {
					t.Errorf("%s, with %s: the daemons are %s", n.Name, got, state)
				}
				if running := n.Do("/proc/$(systemctl show --value -p MainPID clientmountd)/exe version"); !contains(running, got) {
					t.Errorf("%s has %s, but %s runs", n.Name, got, running)
				}
			}
			a := f.DeployJSON("install", next.PackageArguments()...)
			if a.Code != 0 {
				t.Errorf("the next run: %+v", a.Result)
			}
			for _, n := range f.Nodes {
				healthy(t, f, n, next)
			}
		})
	}
}
