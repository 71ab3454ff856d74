package container

import (
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

const asUser = "runuser -u alice -- "

// nnf-dm starts with the first connection and exits when it is idle.
func socketActivation(t *testing.T, m *machine.Machine) {
	m.Setting("nnf-dm", "20-test", "[daemon]\nidle_timeout = \"3s\"\n")
	m.Do("systemctl start nnf-dm.socket")
	if state := m.Property("nnf-dm.service", "ActiveState"); state != "inactive" {
		t.Fatalf("before the first connection the service is %s", state)
	}
	for round := range 2 {
		has(t, m.Do(asUser+"nnf-dmctl version"), "nnf-dm ")
		if state := m.Property("nnf-dm.service", "ActiveState"); state != "active" {
			t.Fatalf("round %d: the service is %s", round, state)
		}
		m.Await("the daemon has exited", `[ "$(systemctl show --value -p ActiveState nnf-dm.service)" = inactive ]`)
		if result := m.Property("nnf-dm.service", "Result"); result != "success" {
			t.Errorf("round %d: the result is %s", round, result)
		}
	}
	if state := m.Property("nnf-dm.socket", "ActiveState"); state != "active" {
		t.Errorf("the socket is %s", state)
	}
}

// nnf-dm runs as its own user, without a capability, and cannot write anywhere.
func sandbox(t *testing.T, m *machine.Machine) {
	m.Do("systemctl start nnf-dm.socket && " + asUser + "nnf-dmctl version")
	pid := m.Property("nnf-dm.service", "MainPID")
	status := m.Do("cat /proc/" + pid + "/status")
	has(t, status, "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2")
	uid := m.Do("id -u nnf-dm")
	if uid == "0" || !strings.Contains(status, "Uid:\t"+uid+"\t"+uid) {
		t.Errorf("it does not run as user %s: %s", uid, status)
	}
	if out, code, err := m.Run(m.Context(), "nsenter -t "+pid+" -m -- touch /usr/x /etc/x"); err != nil || code == 0 || !strings.Contains(out, "Read-only file system") {
		t.Errorf("writing in its mount namespace: %v, exit code %d, %s", err, code, out)
	}
	has(t, environment(m, "nnf-dm"), "GOMEMLIMIT=128MiB\n", "GOMAXPROCS=1\n")
}

// Users cannot read the tokens; the user of nnf-dm can read that of nnf-dm.
func tokenIsPrivate(t *testing.T, m *machine.Machine) {
	for _, d := range []string{"clientmountd", "nnf-dm"} {
		if out, code, err := m.Run(m.Context(), asUser+"cat /etc/"+d+"/service.token"); err != nil || code == 0 {
			t.Errorf("a user can read the token of %s: %v %d %s", d, err, code, out)
		}
	}
	m.Do("runuser -u nnf-dm -- cat /etc/nnf-dm/service.token >/dev/null")
}

// Users call nnf-dm continuously while it is restarted 20 times. The old or the new process
// answers every call.
func restartRefusesNoConnection(t *testing.T, m *machine.Machine) {
	m.Do("systemctl start nnf-dm.socket; rm -f /root/stop")
	m.Do(`(for k in 1 2 3; do (until [ -e /root/stop ]; do out=$(` + asUser + `nnf-dmctl version 2>&1) && echo answered || echo "exit code $?: $out"; done) & done; wait; echo end) >/root/asked 2>&1 </dev/null &`)
	for range 20 {
		m.Do("systemctl restart nnf-dm; sleep 0.1")
	}
	m.Do("touch /root/stop")
	allAnswered(t, m)
}

// allAnswered checks that all calls of the users got an answer.
func allAnswered(t *testing.T, m *machine.Machine) {
	t.Helper()
	m.Await("the users have stopped", "grep -qx end /root/asked")
	refused, answered := m.Do("grep -vx 'answered\\|end' /root/asked || :"), m.Do("grep -cx answered /root/asked")
	if refused != "" || len(answered) < 2 { // fewer than ten would be meaningless
		t.Errorf("nnf-dm has answered %s times; failed calls: %s", answered, refused)
	}
}
