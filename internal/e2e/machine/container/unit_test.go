package container

import (
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// unitFeatures are features of the installed units.
var unitFeatures = []feature{
	{"verified", unitsAreSound},
	{"ready after sync", readyAfterSync},
	{"mount namespace of the host", hostMountNamespace},
	{"private mount namespace", privateMountNamespace},
	{"limits of the Go runtime", runtimeLimits},
	{"watchdog", watchdog},
	{"killed", restartAfterKill},
	{"command line", editCommandLine},
	{"reload", reload},
	{"alias", alias},
	{"sandbox", sandbox},
	{"socket activation", socketActivation},
	{"restart refuses no connection", restartRefusesNoConnection},
	{"token is private", tokenIsPrivate},
}

func unitsAreSound(t *testing.T, m *machine.Machine) {
	out := m.Do("cd /usr/lib/systemd/system && systemd-analyze verify --man=no ./clientmountd.service ./nnf-dm.service ./nnf-dm.socket 2>&1")
	if out != "" {
		t.Error("systemd-analyze verify: ", out)
	}
	m.Do("systemctl daemon-reload")
	for _, line := range m.UnitWarnings() {
		t.Error("in the journal after a daemon-reload: ", line)
	}
	for unit, limit := range map[string]string{"clientmountd.service": "52", "nnf-dm.service": "19"} {
		m.Do("systemd-analyze security --threshold=" + limit + " " + unit)
	}
}

// clientmountd reports READY only after it has listed its ClientMounts.
func readyAfterSync(t *testing.T, m *machine.Machine) {
	cluster := m.Fixture.Cluster
	if err := cluster.Pause(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cluster.Resume() }()
	m.Do("systemctl start --no-block clientmountd")
	m.Await("the daemon runs", `[ "$(systemctl show --value -p MainPID clientmountd)" != 0 ]`)
	for range 10 {
		if state := m.Property("clientmountd", "ActiveState"); state != "activating" {
			t.Fatalf("without an answer of the API server, the unit is %s", state)
		}
		wait.Pass(t, 200*time.Millisecond, "the state must not change for two seconds")
	}
	if err := cluster.Resume(); err != nil {
		t.Fatal(err)
	}
	m.Await("the unit is active", "systemctl is-active clientmountd")
	if text := m.Property("clientmountd", "StatusText"); text == "" {
		t.Error("the daemon has reported no status")
	}
}

// The daemon runs in the host's mount namespace, so its mounts are visible to the jobs.
func hostMountNamespace(t *testing.T, m *machine.Machine) {
	m.Do("systemctl start clientmountd")
	m.Do(`p=$(systemctl show --value -p MainPID clientmountd); [ "$(readlink /proc/$p/ns/mnt)" = "$(readlink /proc/1/ns/mnt)" ]`)
}

func runtimeLimits(t *testing.T, m *machine.Machine) {
	m.Do("systemctl start clientmountd")
	env := environment(m, "clientmountd")
	has(t, env, "GOMEMLIMIT=20MiB\n", "GOMAXPROCS=1\n", "HTTP2_READ_IDLE_TIMEOUT_SECONDS=0", "RUNTIME_DIRECTORY=/run/clientmountd")
	m.Edit("clientmountd", "[Service]\nEnvironment=GOMEMLIMIT=30MiB\nEnvironment=GOMAXPROCS=2\n")
	m.Do("systemctl restart clientmountd")
	env = environment(m, "clientmountd")
	has(t, env, "GOMEMLIMIT=30MiB\n", "GOMAXPROCS=2\n")
}

// systemd restarts a daemon that does not answer the watchdog.
func watchdog(t *testing.T, m *machine.Machine) {
	m.Edit("clientmountd", "[Service]\nWatchdogSec=2\nRestartSec=100ms\n")
	m.Do("systemctl start clientmountd")
	pid := m.Property("clientmountd", "MainPID")
	m.Do("kill -STOP " + pid)
	m.Await("another process serves", `p=$(systemctl show --value -p MainPID clientmountd); [ $p != 0 ] && [ $p != `+pid+` ] && systemctl is-active clientmountd`)
	if n := m.Property("clientmountd", "NRestarts"); n != "1" {
		t.Errorf("%s restarts, want 1", n)
	}
	has(t, m.Do("journalctl -b --no-pager -o cat _PID=1 -u clientmountd"), "Watchdog timeout")
}

// systemd restarts a killed daemon.
func restartAfterKill(t *testing.T, m *machine.Machine) {
	m.Do("systemctl start clientmountd")
	pid := m.Property("clientmountd", "MainPID")
	m.Do("kill -KILL " + pid)
	m.Await("another process serves", `p=$(systemctl show --value -p MainPID clientmountd); [ $p != 0 ] && [ $p != `+pid+` ] && systemctl is-active clientmountd`)
}

// The drop-in in units.md has an empty ExecStart= and a new one.
func editCommandLine(t *testing.T, m *machine.Machine) {
	m.Do("systemctl start clientmountd")
	m.Edit("clientmountd", "[Service]\nExecStart=\nExecStart=/usr/bin/clientmountd --log-level=debug\n")
	m.Do("systemctl restart clientmountd")
	line := m.Do(`tr '\0' ' ' </proc/$(systemctl show --value -p MainPID clientmountd)/cmdline`)
	if line != "/usr/bin/clientmountd --log-level=debug " {
		t.Errorf("the daemon runs as %q", line)
	}
	m.Do("systemctl revert clientmountd && systemctl restart clientmountd")
	if line := m.Do(`tr '\0' ' ' </proc/$(systemctl show --value -p MainPID clientmountd)/cmdline`); line != "/usr/bin/clientmountd " {
		t.Errorf("after systemctl revert it runs as %q", line)
	}
}

// A reload reads the configuration without a new process.
func reload(t *testing.T, m *machine.Machine) {
	m.Do("systemctl start clientmountd")
	pid := m.Property("clientmountd", "MainPID")
	m.Setting("clientmountd", "20-test", "[log]\nlevel = \"debug\"\n")
	m.Do("systemctl reload clientmountd")
	m.Await("the reload is in the journal", "journalctl -b -u clientmountd EVENT=reload | grep -q log.level")
	if now := m.Property("clientmountd", "MainPID"); now != pid {
		t.Errorf("process %s after the reload, %s before", now, pid)
	}
}

// The name of the older unit is an alias of the new one.
func alias(t *testing.T, m *machine.Machine) {
	m.Do("systemctl enable --now clientmountd")
	if id := m.Property("nnf-clientmount.service", "Id"); id != "clientmountd.service" {
		t.Errorf("nnf-clientmount.service is %q", id)
	}
}

// With a drop-in that gives it a private mount namespace, the daemon does not start: no job
// would see its mounts. The journal has the reason and the next action.
func privateMountNamespace(t *testing.T, m *machine.Machine) {
	m.Edit("clientmountd", "[Service]\nProtectSystem=full\nRestart=no\n")
	_, code, err := m.Run(m.Context(), "systemctl start clientmountd")
	if err != nil {
		t.Fatal(err)
	}
	if code == 0 {
		t.Error("systemctl start succeeds")
	}
	if state := m.Property("clientmountd", "ActiveState"); state != "failed" {
		t.Errorf("the unit is %s", state)
	}
	// -t and not -u: the journal may not know the unit of a process that has already exited.
	m.Await("the reason is in the journal", "journalctl --sync; journalctl -b -q --no-pager -o cat -p err -t clientmountd | grep 'mount namespace' | grep Protect")
}
