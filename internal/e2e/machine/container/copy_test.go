package container

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

// alice runs a job on the machine, whose storage a rabbit copies.
type alice struct {
	*fixture.Job
	rabbit *lab.Rabbit
}

// as returns the command line with which a user of the machine calls nnf-dmctl for alice's job.
func as(user, command string) string {
	return "runuser -u " + user + " -- env DW_WORKFLOW_NAME=alices nnf-dmctl " + command
}

// copied returns the directory of copies to the root of the global file system: the rabbit uses a
// directory for each of its mounts.
func (a alice) copied() string { return fixture.Global + "/" + filepath.Base(a.OnRabbit(0)) }

func newJob(t *testing.T, m *machine.Machine, name string) alice {
	t.Helper()
	w := m.Fixture.For(t)
	w.System = "default" // what the installed daemon reads
	w.Site()
	j := alice{Job: w.Job(name, 1001)}
	m.Do("for d in " + j.Mount(0) + " " + fixture.Global + "; do mkdir -p $d && chown alice:alice $d; done")
	w.Mounted(j.ClientMount(w.Node, 0))
	w.Mounted(j.ClientMount(w.Rabbit, 0))
	j.rabbit = w.StartRabbit(map[string]string{j.OnRabbit(0): m.Outside(j.Mount(0)), fixture.Global: m.Outside(fixture.Global)})
	return j
}

// A job copies through the installed daemon.
func TestCopies(t *testing.T) {
	m := node(t)
	j := newJob(t, m, "alices")
	m.Setting("nnf-dm", "20-test", "[daemon]\nidle_timeout = \"3s\"\n")
	m.Do("systemctl start nnf-dm.socket")
	service := func() string { return m.Property("nnf-dm", "ActiveState") }

	t.Run("as the user", func(t *testing.T) {
		m := m.For(t)
		if state := service(); state != "inactive" {
			t.Errorf("before the first connection, the service is %s", state)
		}
		m.Do("runuser -u alice -- sh -c 'umask 077; echo content >" + j.Mount(0) + "/file'")
		m.Do(as("alice", "copy --wait "+j.Mount(0)+"/file "+fixture.Global+"/copied"))
		if state := service(); state != "active" {
			t.Errorf("after the first connection, it is %s", state)
		}
		if got := m.Do("cd " + j.copied() + "; stat -c '%U %a' copied; cat copied"); got != "alice 600\ncontent" {
			t.Errorf("the copy is %s", got)
		}
	})

	m.Do("runuser -u alice -- touch " + j.Mount(0) + "/held")
	faults(t, j, "*/held hold=true")
	id := m.Do(as("alice", "copy "+j.Mount(0)+"/held "+fixture.Global+"/held"))

	t.Run("other user", func(t *testing.T) {
		m := m.For(t)
		for _, verb := range []string{"status", "cancel", "delete", "wait --timeout=20s"} {
			has(t, exits(t, m, 3, as("bob", verb+" "+id)), "could not find")
		}
		if out, _, err := m.Run(m.Context(), as("bob", "list -q")); err != nil || strings.Contains(out, id) {
			t.Errorf("bob's list contains alice's copy: %s %v", out, err)
		}
		has(t, exits(t, m, 3, as("bob", "copy "+j.Mount(0)+"/held "+fixture.Global+"/bobs")), "could not find workflow")
		m.Await("each refusal is in the journal", `journalctl --sync; [ "$(journalctl -b -u nnf-dm EVENT=dm-refused UID=1002 -o cat | wc -l)" = 6 ]`)
		has(t, m.Do("journalctl -b -q --no-pager -x -u nnf-dm EVENT=dm-refused"), "Subject: ", "For the job: ", "What to do: ", "man:nnf-dm(8)")
		has(t, m.Do(as("alice", "list -q")), id)
	})

	t.Run("restart during a wait", func(t *testing.T) {
		m := m.For(t)
		before := m.Property("nnf-dm", "MainPID")
		ended := make(chan error, 1)
		ctx := m.Context()
		go func() {
			out, code, err := m.Run(ctx, as("alice", "wait "+id))
			if code != 0 {
				err = errors.Join(err, fmt.Errorf("exit code %d: %s", code, out))
			}
			ended <- err
		}()
		m.Await("the client waits", "pgrep -u alice -x nnf-dmctl")
		m.Await("the daemon follows it", "systemctl show --value -p StatusText nnf-dm | grep 'watching the data movements in '")
		m.Do("systemctl restart nnf-dm")
		if now := m.Property("nnf-dm", "MainPID"); now == before {
			t.Error("the daemon has not been restarted")
		}
		select {
		case err := <-ended:
			t.Fatal("the wait has returned before the copy has ended: ", err)
		case <-time.After(time.Second): // usually long enough for a wrong return
		}
		faults(t, j)
		if err := <-ended; err != nil {
			t.Error("the wait: ", err)
		}
		m.Do("test -e " + j.copied() + "/held")
	})

	t.Run("exit when idle", func(t *testing.T) {
		m := m.For(t)
		m.Await("the daemon has exited", `[ "$(systemctl show --value -p ActiveState nnf-dm.service)" = inactive ]`)
		if result := m.Property("nnf-dm", "Result"); result != "success" {
			t.Errorf("the result is %s", result)
		}
		m.Do("systemctl is-active nnf-dm.socket && ! pgrep -x nnf-dm")
	})
}

func faults(t *testing.T, j alice, lines ...string) {
	t.Helper()
	if err := j.rabbit.Faults(lines...); err != nil {
		t.Fatal(err)
	}
}
