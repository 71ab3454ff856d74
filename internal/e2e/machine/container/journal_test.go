package container

import (
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// journalFeatures are features of the journal. After each test, checkJournal checks that all
// message IDs are explained.
var journalFeatures = []feature{
	{"journal of a workflow", journalOfWorkflow},
	{"silent when idle", idleLogsNothing},
}

// failed creates a ClientMount whose device does not exist, and waits until its failure is in the
// journal. The returned function deletes it.
func failed(m *machine.Machine) func() {
	s := m.Fixture
	m.Do("systemctl start clientmountd")
	s.UseProfile(fixture.ProfileSpec{})
	s.Mount("one", fixture.MountSpec{Path: "/mnt/nnf/one", Type: "xfs"})
	s.AwaitError("one")
	m.Await("the failure is in the journal", "journalctl -b -u clientmountd WORKFLOW=job7 CLIENTMOUNT=one EVENT=failed -o cat | grep -q .")
	return func() { s.Delete("one") }
}

// The journal has what happened to a workflow. With -x it explains an error and the next action.
func journalOfWorkflow(t *testing.T, m *machine.Machine) {
	defer failed(m)()
	out := m.Do("journalctl -b --no-pager -o json -u clientmountd WORKFLOW=job7 EVENT=failed -n 1")
	has(t, out, `"MESSAGE_ID"`, `"HINT"`, `"CLIENTMOUNT":"one"`)
	if other := m.Do("journalctl -b --no-pager -q -o cat -u clientmountd WORKFLOW=job8 || :"); other != "" {
		t.Errorf("records of another workflow: %s", other)
	}
	has(t, m.Do("journalctl -b -q --no-pager -x -u clientmountd EVENT=failed"), "Subject: ", "ClientMount one", "For the job: ", "What to do: ", "man:clientmountd(8)")
}

// Idle daemons write nothing.
func idleLogsNothing(t *testing.T, m *machine.Machine) {
	m.Do("systemctl start clientmountd nnf-dm.socket && " + asUser + "nnf-dmctl version")
	m.Do("journalctl --sync; journalctl -b -u clientmountd -u nnf-dm -n 0 --cursor-file=/root/cursor")
	const idle = 10 * time.Second
	wait.Pass(t, idle, "longer than the period of frequent messages")
	if out := m.Do("journalctl --sync; journalctl -b -q --no-pager -o cat -u clientmountd -u nnf-dm --cursor-file=/root/cursor"); out != "" {
		t.Errorf("messages within %v: %s", idle, out)
	}
	if state := m.Property("nnf-dm", "ActiveState"); state != "active" {
		t.Errorf("nnf-dm is %s, so the test is meaningless", state)
	}
	if n := m.Property("clientmountd", "NRestarts"); n != "0" {
		t.Errorf("systemd has restarted clientmountd %s times", n)
	}
}
