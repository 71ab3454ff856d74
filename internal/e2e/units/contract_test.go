package units

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
)

const (
	mounter    = "systemd/system/clientmountd.service"
	copier     = "systemd/system/nnf-dm.service"
	socketUnit = "systemd/system/nnf-dm.socket"
	timerUnit  = "systemd/system/nnf-dm.timer"
)

// Directives that installers, scripts and administrators rely on.
func TestDirectives(t *testing.T) {
	for _, c := range []struct{ file, section, key, want string }{
		{mounter, "Unit", "Description", "Data Workflow Service (DWS) Client Mount Service"},
		{mounter, "Unit", "StartLimitIntervalSec", "0"},
		{mounter, "Unit", "Wants", "network-online.target"},
		{mounter, "Unit", "After", "network-online.target"},
		{mounter, "Unit", "After", "lvmlockd.service"},
		{mounter, "Unit", "After", "dlm.service"},
		{mounter, "Unit", "After", "lnet.service"},
		{mounter, "Unit", "After", "pacemaker.service"},
		{mounter, "Unit", "After", "multipathd.service"},
		{mounter, "Unit", "After", "iscsi.service"},
		{mounter, "Service", "Type", "notify"},
		{mounter, "Service", "ExecStart", "/usr/bin/clientmountd"},
		{mounter, "Service", "ExecReload", "/bin/kill"},
		{mounter, "Service", "Restart", "on-failure"},
		{mounter, "Service", "KillMode", "mixed"},
		{mounter, "Service", "RuntimeDirectory", "clientmountd"},
		{mounter, "Service", "RuntimeDirectoryPreserve", "yes"},
		{mounter, "Install", "WantedBy", "multi-user.target"},
		{mounter, "Install", "Alias", "nnf-clientmount.service"},
		{copier, "Unit", "Description", "Near-Node Flash (NNF) Data Movement Service"},
		{copier, "Unit", "StartLimitIntervalSec", "0"},
		{copier, "Unit", "After", "network-online.target"},
		{copier, "Unit", "Requires", "nnf-dm.socket"},
		{copier, "Service", "Type", "notify"},
		{copier, "Service", "ExecStart", "/usr/bin/nnf-dm"},
		{copier, "Service", "ExecReload", "/bin/kill"},
		{copier, "Service", "Restart", "on-failure"},
		{copier, "Service", "KillMode", "mixed"},
		{copier, "Service", "User", "nnf-dm"},
		{copier, "Service", "ProtectSystem", "strict"},
		{copier, "Install", "Also", "nnf-dm.socket"},
		{socketUnit, "Socket", "ListenStream", "/run/nnf-dm.sock"},
		{socketUnit, "Socket", "SocketMode", "0666"},
		{socketUnit, "Install", "WantedBy", "sockets.target"},
	} {
		got := strings.Fields(strings.Join(values(readUnit(t, c.file), c.section, c.key), " "))
		want := strings.Fields(c.want)
		if c.section == "Unit" && c.key != "Description" || c.key == "ExecReload" {
			if !slices.Contains(got, want[0]) {
				t.Errorf("%s: [%s] %s= lacks %s: %q", c.file, c.section, c.key, want[0], got)
			}
		} else if !slices.Equal(got, want) {
			t.Errorf("%s: [%s] %s= is %q, want %q", c.file, c.section, c.key, got, c.want)
		}
	}
	for _, key := range []string{"CapabilityBoundingSet", "AmbientCapabilities"} {
		if v := values(readUnit(t, copier), "Service", key); v != nil {
			t.Errorf("nnf-dm has capabilities: %s=%q", key, v)
		}
	}
}

// systemd restarts a daemon after every failure. No exit status is excluded: the Go
// runtime exits with 2, the code for usage errors, after a panic and after the signal of
// the watchdog.
func TestRestart(t *testing.T) {
	for _, file := range []string{mounter, copier} {
		all := readUnit(t, file)
		for _, key := range []string{"RestartPreventExitStatus", "SuccessExitStatus"} {
			if v := values(all, "Service", key); v != nil {
				t.Errorf("%s: %s=%q", file, key, v)
			}
		}
		if restart := value(t, all, "Service", "Restart"); restart != "on-failure" && restart != "always" {
			t.Errorf("%s: Restart=%s", file, restart)
		}
	}
}

// The units do not start storage services of the node: a missing one is not an error, and
// one that an administrator has stopped stays stopped.
func TestDependencies(t *testing.T) {
	for _, file := range []string{mounter, copier} {
		for _, key := range []string{"Wants", "Requires", "Requisite", "BindsTo", "PartOf", "Upholds"} {
			for _, unit := range strings.Fields(strings.Join(values(readUnit(t, file), "Unit", key), " ")) {
				if unit != "network-online.target" && unit != "nnf-dm.socket" && !strings.HasPrefix(unit, "modprobe@") {
					t.Errorf("%s: %s=%s", file, key, unit)
				}
			}
		}
	}
}

// span returns the value of a directive as a duration. time.ParseDuration does not
// support the unit min.
func span(t *testing.T, file, key string) time.Duration {
	t.Helper()
	text := value(t, readUnit(t, file), "Service", key)
	d, err := time.ParseDuration(strings.Replace(text, "min", "m", 1))
	if err != nil {
		t.Fatalf("%s: %s=%s: %v", file, key, text, err)
	}
	return d
}

func setting(t *testing.T, table *config.Table, key string) string {
	t.Helper()
	for _, s := range table.Settings {
		if s.Key == key {
			return s.Default
		}
	}
	t.Fatalf("no setting %s", key)
	return ""
}

// The time limits of the units are longer than those of the settings.
func TestTimes(t *testing.T) {
	mount, data := new(clientmount.Configuration).Table(), new(server.Configuration).Table()
	for _, c := range []struct {
		file  string
		table *config.Table
		key   string
	}{
		{mounter, mount, "daemon.shutdown_timeout"}, {mounter, mount, "mount.hook_timeout"}, {mounter, mount, "mount.command_timeout"},
		{copier, data, "daemon.shutdown_timeout"},
	} {
		limit, err := time.ParseDuration(setting(t, c.table, c.key))
		if err != nil {
			t.Fatal(err)
		}
		if stop := span(t, c.file, "TimeoutStopSec"); stop < limit+10*time.Second {
			t.Errorf("%s: TimeoutStopSec= is %v, and %s is %v", c.file, stop, c.key, limit)
		}
	}
	for _, file := range []string{mounter, copier} {
		if delay := span(t, file, "RestartSec"); delay < time.Second || delay > time.Minute {
			t.Errorf("%s: restarts after %v", file, delay)
		}
		if w := span(t, file, "WatchdogSec"); w < time.Minute {
			t.Errorf("%s: the watchdog causes a wake-up every %v", file, w/2)
		}
	}
}

// The paths in the units are the default paths of the daemons.
func TestPaths(t *testing.T) {
	mount, data := new(clientmount.Configuration).Table(), new(server.Configuration).Table()
	if got, want := setting(t, mount, "daemon.runtime_directory"), "/run/"+value(t, readUnit(t, mounter), "Service", "RuntimeDirectory"); got != want {
		t.Errorf("the runtime directory is %s in the settings and %s in the unit", got, want)
	}
	listen, mode := value(t, readUnit(t, socketUnit), "Socket", "ListenStream"), value(t, readUnit(t, socketUnit), "Socket", "SocketMode")
	if got := setting(t, data, "socket.path"); got != "/var"+listen {
		t.Errorf("the socket is %s in the settings and %s in the unit", got, listen)
	}
	if got := setting(t, data, "socket.mode"); got != mode {
		t.Errorf("the mode of the socket is %s in the settings and %s in the unit", got, mode)
	}
}

// The drop-ins set the same values as the defaults of the settings, so that a daemon
// behaves the same without them, and nothing else.
func TestRuntime(t *testing.T) {
	for daemon, table := range map[string]*config.Table{"clientmountd": new(clientmount.Configuration).Table(), "nnf-dm": new(server.Configuration).Table()} {
		env := map[string]string{}
		for _, v := range values(readUnit(t, "systemd/system/"+daemon+".service.d/10-runtime.conf"), "Service", "Environment") {
			name, value, _ := strings.Cut(v, "=")
			env[name] = value
		}
		for name, want := range map[string]string{
			"GOMEMLIMIT": setting(t, table, "runtime.gomemlimit"), "GOMAXPROCS": setting(t, table, "runtime.gomaxprocs"),
			"HTTP2_READ_IDLE_TIMEOUT_SECONDS": "0", "HTTP2_PING_TIMEOUT_SECONDS": "60", // internal/kube, pingTimes
		} {
			if env[name] != want {
				t.Errorf("%s: %s is %q, want %q", daemon, name, env[name], want)
			}
			delete(env, name)
		}
		if len(env) > 0 {
			t.Errorf("%s: the drop-in also sets %v", daemon, env)
		}
	}
}
