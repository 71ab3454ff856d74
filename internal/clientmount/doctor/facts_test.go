package doctor

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/text/checklist"
	units "github.com/compute-daemons/compute-daemons/systemd"
)

const (
	uid    = "2c5d0000-0000-4000-8000-00000000000a"
	group  = "11110000-0000-4000-8000-00000000000b_0_1"
	device = "/dev/mapper/11110000--0000--4000--8000--00000000000b_0_1-lv"
	path   = "/mnt/nnf/job7-0"
	nqn    = "nqn.2014-08.org.example:rabbit"
)

var now = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// jwt returns a token of an account that expires at a time; zero: never.
func jwt(expires time.Time) string {
	claims := `{"sub":"system:serviceaccount:nnf-system:nnf-clientmount"}`
	if !expires.IsZero() {
		claims = fmt.Sprintf(`{"sub":"system:serviceaccount:nnf-system:nnf-clientmount","exp":%d}`, expires.Unix())
	}
	return "x." + encode(claims) + ".x"
}

// healthy returns the facts about a node on which everything is fine, with one mount.
func healthy(t *testing.T) *facts {
	t.Helper()
	s := &settings{Configuration: new(clientmount.Configuration), node: "compute-01"}
	s.Controller.Plan.Mode, s.Controller.Plan.Roots, s.Controller.ShutdownTimeout, s.Controller.Limits.Command = "real", []string{"/mnt"}, time.Minute, 2*time.Minute
	s.MountNamespace, s.RuntimeDirectory = "host", "/run/clientmountd"
	s.loaded.Files = []string{"/etc/clientmountd/config.toml"}

	const unit = systemd.PackageDirectory + "/clientmountd.service"
	i := &systemd.Inspection{
		Status: &systemd.Status{
			Program: "clientmountd",
			Service: systemd.ServiceStatus{Installed: true, Enabled: true, Active: true, Ready: true, PID: 4711, Status: "2 mounts, API server answers"},
			Units:   []systemd.UnitStatus{{Unit: "clientmountd.service", Load: "loaded", Active: "active", Sub: "running", UnitFile: "enabled", Result: "success"}},
		},
		Properties: map[string]string{
			"LoadState": "loaded", "NeedDaemonReload": "no", "KillMode": "mixed", "TimeoutStopUSec": "11min", "MemoryMax": "4294967296", "MemoryHigh": "2147483648",
			"RuntimeDirectoryPreserve": "yes",
		},
		Files: []string{unit}, Directives: systemd.ParseUnit(unit, units.ClientmountdService),
	}
	i.Start.Environ = []string{"PATH=/usr/bin", "GOMAXPROCS=1", "GOMEMLIMIT=20MiB"}

	m := clientmount.MountRecord{Plan: plan.Plan{
		Path: path, Type: dws.TypeXFS, FSType: "xfs", VG: group, LV: "lv", Device: device,
		NVMe: []dws.NVMeNamespace{{DeviceSerial: nqn, NamespaceID: "12"}}, Mount: []plan.Step{{Kind: plan.Mount}},
	}, Mounted: &clientmount.Identity{ID: 50}, Ready: true}
	record := &clientmount.Record{Version: 1, Name: "job7-xfs", Namespace: "compute-01", UID: uid, Mounts: []clientmount.MountRecord{m}}
	object := &dws.ClientMount{ObjectMeta: metav1.ObjectMeta{Name: "job7-xfs", UID: types.UID(uid)}}
	object.Spec.DesiredState, object.Spec.Mounts = dws.Mounted, []dws.Mount{{MountPath: path, Type: dws.TypeXFS}}

	f := &facts{
		now: now, directory: "/run/clientmountd", unit: fact[*systemd.Inspection]{value: i}, shipped: systemd.ParseUnit("shipped", units.ClientmountdService),
		settings:     fact[*settings]{value: s},
		ownNamespace: fact[namespace]{value: namespace{true, "same"}}, daemonNamespace: fact[namespace]{value: namespace{true, "same"}},
		credentials: fact[*credentials]{value: withToken(t, jwt(time.Time{}), kube.Renewal{})},
		connection: &kube.Connection{
			Server: "https://api.example:6443", Host: "api.example", Port: "6443", Addresses: []string{"10.0.0.1"}, Attempts: []kube.Attempt{{Address: "10.0.0.1:6443"}},
			Secured: true, Expires: now.AddDate(1, 0, 0), Status: 200, Date: now, Local: now, Waited: 20 * time.Millisecond,
		},
		server: &server{
			who:      fact[string]{value: "system:serviceaccount:nnf-system:nnf-clientmount"},
			versions: [2]fact[string]{{value: "v1alpha7"}, {value: "v1alpha11"}},
			objects:  fact[[]*dws.ClientMount]{value: []*dws.ClientMount{object}},
		},
		volumes:    fact[[]node.LV]{value: []node.LV{{VG: group, Name: "lv", Attr: "-wi-ao----"}, {VG: "system", Name: "root", Attr: "-wi-ao----"}}},
		namespaces: fact[[]node.Namespace]{value: []node.Namespace{{Device: "/dev/nvme0n1", NQN: nqn, NSID: 12}}},
		kernel:     fact[kernel]{value: kernel{release: "6.1.0", deviceMapper: true, raid: true}},
		programs:   fact[map[string]bool]{value: map[string]bool{"systemd": true}},
		records:    fact[*records]{value: &records{list: []*clientmount.Record{record}}},
		moverToken: &mountstate.Token{Identity: "per-node", Account: "system:serviceaccount:compute-01:nnf-dm", Condition: mountstate.TokenValid, Expires: mountstate.Known(now.Add(time.Hour))},
		mounts: fact[[]node.Mount]{value: []node.Mount{
			{ID: 50, Mountpoint: path, FSType: "xfs", Source: device}, {ID: 51, Mountpoint: "/mnt/home", FSType: "nfs4", Source: "home:/"},
		}},
	}
	out, err := os.ReadFile("../../node/testdata/lvm/lvmconfig-2.03.16")
	if err != nil {
		t.Fatal(err)
	}
	if f.lvm.value, err = node.ParseLVMSettings(string(out)); err != nil {
		t.Fatal(err)
	}
	return f
}

// shared makes the mount one of a shared volume group.
func shared(f *facts) {
	m := &f.records.value.list[0].Mounts[0]
	m.Plan.Type, m.Plan.Mount = dws.TypeGFS2, append(m.Plan.Mount, plan.Step{Kind: plan.LockStart})
	for _, p := range lockPrograms {
		f.programs.value[p] = true
	}
	f.lvm.value["global/use_lvmlockd"] = []string{"1"}
}

// lustre makes the mount one of Lustre.
func lustre(f *facts) {
	f.records.value.list[0].Mounts[0].Plan.Type = dws.TypeLustre
	f.kernel.value.lnet, f.kernel.value.lustre, f.kernel.value.lustreModules = true, true, true
	f.nids.value = "10.0.0.7@tcp\n"
}

func TestHealthy(t *testing.T) {
	for name, change := range map[string]func(*facts){"xfs": func(*facts) {}, "gfs2": shared, "lustre": lustre} {
		f := healthy(t)
		change(f)
		skipped := map[string][]string{"xfs": {"locks", "lustre"}, "gfs2": {"lustre"}, "lustre": {"locks"}}[name]
		list := check(f)
		for _, c := range list {
			want := checklist.OK
			if slices.Contains(skipped, c.Name) {
				want = checklist.Skip
			}
			if c.State != want || c.Text == "" || c.Hint != "" {
				t.Errorf("%s: %+v", name, c)
			}
		}
		if len(list) != len(checks) {
			t.Errorf("%s: %d results of %d checks", name, len(list), len(checks))
		}
	}
}

// with returns a change of the properties of the unit.
func property(name, value string) func(*facts) {
	return func(f *facts) { f.unit.value.Properties[name] = value }
}

func dropIn(text string) func(*facts) {
	return func(f *facts) {
		const file = systemd.UnitDirectory + "/clientmountd.service.d/x.conf"
		f.unit.value.Directives = append(f.unit.value.Directives, systemd.ParseUnit(file, "[Service]\n"+text+"\n")...)
	}
}

func lvm(name string, values ...string) func(*facts) {
	return func(f *facts) { f.lvm.value[name] = values }
}

func connection(change func(c *kube.Connection)) func(*facts) {
	return func(f *facts) { change(f.connection); f.server = nil }
}

func unsecured(err error) func(*facts) {
	return connection(func(c *kube.Connection) { c.Secured, c.Status, c.Handshake, c.Err = false, 0, err, err })
}

func record(change func(m *clientmount.MountRecord)) func(*facts) {
	return func(f *facts) { change(&f.records.value.list[0].Mounts[0]) }
}

func marked(change func(m *node.Marked)) func(*facts) {
	return func(f *facts) {
		m := node.Marked{PID: 3211, Mark: uid, Program: "umount", Line: "umount " + path, Age: 16 * time.Minute, Kernel: true, Killed: true, Waits: "xfs_log_force"}
		change(&m)
		f.marked.value = []node.Marked{m}
	}
}

func both(changes ...func(*facts)) func(*facts) {
	return func(f *facts) {
		for _, change := range changes {
			change(f)
		}
	}
}

func moverToken(condition string) func(*facts) {
	return func(f *facts) {
		f.moverToken = &mountstate.Token{Account: "a", Expires: &now, Renewal: &now, Condition: condition, Error: "no route", Hint: "do it"}
	}
}

var errHang = timeoutError{4 * time.Second}

var cases = []struct {
	check  string
	state  checklist.State
	text   string // part of the text
	hint   string // part of the hint
	change func(*facts)
}{
	{"configuration", checklist.Fail, "cannot be loaded: a:1: unknown; b:2: wrong", "config check", func(f *facts) {
		f.settings.err = errors.New("a:1: unknown\nb:2: wrong")
	}},
	{"configuration", checklist.Fail, "no answer within 4s", "config check", func(f *facts) { f.settings.err = errHang }},
	{"configuration", checklist.Warn, "X is ignored", "config check", func(f *facts) { f.settings.value.loaded.Warnings = []string{"X is ignored"} }},
	{"configuration", checklist.Warn, `mount.mode is "mock"`, "remove mount.mode", func(f *facts) { f.settings.value.Controller.Plan.Mode = "mock" }},

	{"unit", checklist.Fail, "does not report the unit: no answer within 4s", "is-system-running", func(f *facts) { f.unit = fact[*systemd.Inspection]{err: errHang} }},
	{"unit", checklist.Warn, "Service is not installed", "", func(f *facts) {
		f.unit.value.Status.Service.Installed, f.unit.err = false, systemd.ErrNotInstalled
	}},
	{"unit", checklist.Fail, "clientmountd.service is masked", "systemctl unmask", func(f *facts) { f.unit.value.Status.Units[0].Load = "masked" }},
	{"unit", checklist.Fail, "cannot be loaded (bad-setting)", "systemctl status", func(f *facts) { f.unit.value.Status.Units[0].Load = "bad-setting" }},
	{"unit", checklist.Warn, "/etc/systemd/system/clientmountd.service overrides the unit of the package", "run clientmountd remove", func(f *facts) {
		f.unit.value.Hidden = []string{"/etc/systemd/system/clientmountd.service overrides the unit of the package; to use that unit, run clientmountd remove"}
	}},
	{"unit", checklist.Fail, "/etc/systemd/system/clientmountd.service.d/x.conf:2: PrivateTmp=yes gives the service a private mount namespace", "remove this line", dropIn("PrivateTmp=yes")},
	{"unit", checklist.Warn, "its files have changed", "daemon-reload", property("NeedDaemonReload", "yes")},
	{"unit", checklist.Warn, "injected", "is-system-running", func(f *facts) { f.unit.err = errors.New("injected") }},

	{"service", checklist.Fail, "does not run: failed (failed), result exit-code", "journalctl", func(f *facts) {
		f.unit.value.Status.Service.Active = false
		u := &f.unit.value.Status.Units[0]
		u.Active, u.Sub, u.Result = "failed", "failed", "exit-code"
	}},
	{"service", checklist.Warn, "is starting as pid 4711", "waits for the API server", func(f *facts) { f.unit.value.Status.Service.Ready = false }},
	{"service", checklist.Warn, "has been replaced", "restart", func(f *facts) { f.replaced = true }},
	{"service", checklist.Warn, "does not start at boot: disabled", "systemctl enable", func(f *facts) {
		f.unit.value.Status.Service.Enabled, f.unit.value.Status.Units[0].UnitFile = false, "disabled"
	}},
	{"service", checklist.Skip, "no unit", "", func(f *facts) { f.unit = fact[*systemd.Inspection]{err: errHang} }},

	{"limits", checklist.Fail, "RuntimeDirectoryPreserve=no", "drop-in", property("RuntimeDirectoryPreserve", "no")},
	{"limits", checklist.Warn, "TimeoutStopSec=1m4s", "drop-in", property("TimeoutStopUSec", "1min 4s")},
	{"limits", checklist.OK, "recommended", "", property("TimeoutStopUSec", "infinity")},
	{"limits", checklist.Warn, "MemoryMax=20 MiB", "drop-in", property("MemoryMax", "20971520")},
	{"limits", checklist.OK, "recommended", "", property("MemoryMax", "infinity")},
	{"limits", checklist.Warn, "MemoryHigh=1024 MiB", "drop-in", property("MemoryHigh", "1073741824")},
	{"limits", checklist.Warn, "KillMode=control-group", "drop-in", property("KillMode", "control-group")},
	{"limits", checklist.Warn, "GOGC=off (/etc/systemd/system/clientmountd.service.d/x.conf:2)", "remove it", both(dropIn("Environment=GOGC=off GOMAXPROCS=5"), func(f *facts) {
		f.unit.value.Start.Environ = []string{"GOGC=off"}
	})},
	{"limits", checklist.Warn, "GOMAXPROCS=5", "remove it", func(f *facts) { f.unit.value.Start.Environ = []string{"GOMAXPROCS=5"} }},

	{"namespace", checklist.Fail, "the daemon runs in a separate mount namespace", "Private…=", func(f *facts) { f.daemonNamespace.value = namespace{false, "5 and 6"} }},
	{"namespace", checklist.Warn, "this command runs in a separate mount namespace", "on the host", func(f *facts) { f.ownNamespace.value = namespace{false, "5 and 6"} }},
	{"namespace", checklist.Warn, "that of the daemon is not known", "hidepid", func(f *facts) { f.daemonNamespace.err = errHang }},
	{"namespace", checklist.Warn, "not known", "hidepid", func(f *facts) { f.ownNamespace.err = errHang }},
	{"namespace", checklist.Skip, "any", "", func(f *facts) {
		f.settings.value.MountNamespace, f.daemonNamespace.value = "any", namespace{false, "5 and 6"}
	}},

	{"nnf-dm", checklist.Skip, "recorded no token", "", func(f *facts) { f.moverToken = nil }},
	{"nnf-dm", checklist.Warn, "is damaged", "same release", func(f *facts) {
		f.moverToken = &mountstate.Token{Condition: mountstate.TokenUnknown, Error: "x is damaged"}
	}},
	{"nnf-dm", checklist.OK, "the last attempt failed, and the daemon retries: no route", "", moverToken(mountstate.TokenRetrying)},
	{"nnf-dm", checklist.Fail, "cannot renew the token: no route", "do it", moverToken(mountstate.TokenFailing)},
	{"nnf-dm", checklist.Fail, "the token has expired", "do it", moverToken(mountstate.TokenExpired)},
	{"credentials", checklist.Fail, "token failed to read", "config dump", func(f *facts) { f.credentials = fact[*credentials]{err: errors.New("token failed to read")} }},
	{"credentials", checklist.Warn, "is readable by users other than its owner", "chmod", func(f *facts) {
		f.credentials.value.warnings = []finding{warn("chmod 0600 x", "the token file is readable by users other than its owner")}
	}},
	{"credentials", checklist.Fail, "is owned by another user", "chown root:root", func(f *facts) { f.credentials.value.fileErr = errors.New("x is owned by another user (uid 7)") }},
	{"credentials", checklist.Skip, "configuration", "", func(f *facts) { f.settings.err = errHang }},

	{"dns", checklist.Fail, "the name api.example is not resolved: no such host", "getent hosts api.example", connection(func(c *kube.Connection) {
		c.Lookup, c.Addresses, c.Attempts, c.Secured, c.Status = lookupError("no such host"), nil, nil, false, 0
	})},
	{"dns", checklist.Fail, "is not resolved within 3s", "resolv.conf", connection(func(c *kube.Connection) {
		c.Addresses, c.Attempts, c.Secured, c.Status, c.Err = nil, nil, false, 0, errHang
	})},
	{"dns", checklist.Fail, "is not valid", "[kubernetes]", connection(func(c *kube.Connection) { c.Host, c.Err = "", errors.New("bad") })},
	{"dns", checklist.OK, "has the address 10.0.0.1", "", connection(func(c *kube.Connection) { c.Host, c.Addresses = "10.0.0.1", nil })},
	{"dns", checklist.Skip, "--offline", "", func(f *facts) { f.offline, f.connection, f.server = true, nil, nil }},
	{"dns", checklist.Skip, "no usable credentials", "", func(f *facts) { f.credentials.err, f.connection, f.server = errHang, nil, nil }},

	{"tcp", checklist.Fail, "the API server cannot be reached: 10.0.0.1:6443: connect: connection refused", "kubernetes.service_port", connection(func(c *kube.Connection) {
		c.Attempts, c.Secured, c.Status = []kube.Attempt{{Address: "10.0.0.1:6443", Err: refused}}, false, 0
	})},
	{"tcp", checklist.Fail, "does not answer at api.example:6443 within 3s", "firewalls", connection(func(c *kube.Connection) { c.Attempts, c.Secured, c.Status = nil, false, 0 })},
	{"tcp", checklist.Fail, "the proxy proxy:3128 cannot be reached", "", connection(func(c *kube.Connection) {
		c.Proxy, c.Attempts, c.Secured, c.Status = "proxy:3128", []kube.Attempt{{Address: "10.0.0.2:3128", Err: refused}}, false, 0
	})},
	{"tcp", checklist.Warn, "not at each of its addresses: [::1]:6443", "addresses of the name", func(f *facts) {
		f.connection.Attempts = []kube.Attempt{{Address: "[::1]:6443", Err: refused}, {Address: "10.0.0.1:6443"}}
	}},
	{"tcp", checklist.Skip, "not resolved", "", connection(func(c *kube.Connection) { c.Lookup, c.Addresses, c.Attempts = lookupError("x"), nil, nil })},

	{"tls", checklist.Fail, "not signed by the CA in kubernetes.cert_file", "nnf-deploy credentials", unsecured(x509.UnknownAuthorityError{})},
	{"tls", checklist.Fail, "for another name", "kubernetes.service_host", unsecured(x509.HostnameError{Certificate: new(x509.Certificate), Host: "api.example"})},
	{"tls", checklist.Fail, "not valid now", "clock", unsecured(x509.CertificateInvalidError{Cert: new(x509.Certificate), Reason: x509.Expired})},
	{"tls", checklist.Fail, "does not speak TLS", "secure port", unsecured(notTLS)},
	{"tls", checklist.Fail, "is not finished within 3s", "MTU", unsecured(nil)},
	{"tls", checklist.Fail, "the TLS handshake failed: remote error", "port", unsecured(errors.New("remote error"))},
	{"tls", checklist.Fail, "the proxy does not connect to https://api.example:6443: Bad Gateway", "HTTPS_PROXY", connection(func(c *kube.Connection) {
		c.Proxy, c.Secured, c.Status, c.Err = "proxy:3128", false, 0, errors.New("Bad Gateway")
	})},
	{"tls", checklist.Warn, "expires in 48h0m0s", "renew", func(f *facts) { f.connection.Expires = now.Add(48 * time.Hour) }},
	{"tls", checklist.Skip, "no connection", "", connection(func(c *kube.Connection) { c.Attempts, c.Secured = nil, false })},

	{"clock", checklist.Fail, "the clock of this node is 10m0s behind that of the API server", "chronyc", func(f *facts) { f.connection.Date = now.Add(10 * time.Minute) }},
	{"clock", checklist.Warn, "20s ahead of", "chronyc", func(f *facts) { f.connection.Date = now.Add(-20 * time.Second) }},
	{"clock", checklist.OK, "below 5s", "", func(f *facts) { f.connection.Date = now.Add(-5 * time.Second) }},
	{"clock", checklist.OK, "below 5s", "", func(f *facts) {
		f.connection.Date, f.connection.Waited = now.Add(-15*time.Second), 20*time.Second // a slow response proves nothing
	}},
	{"clock", checklist.Skip, "no date", "", func(f *facts) { f.connection.Date = time.Time{} }},
	{"clock", checklist.Skip, "does not answer", "", unsecured(nil)},

	{"authentication", checklist.Fail, "refuses the credentials", "nnf-deploy credentials", connection(func(c *kube.Connection) { c.Status = 401 })},
	{"authentication", checklist.Fail, "does not answer: EOF", "load", connection(func(c *kube.Connection) { c.Status, c.Err = 0, errors.New("EOF") })},
	{"authentication", checklist.Fail, "no answer", "API server", func(f *facts) { f.server.who.err = errHang }},
	{"authentication", checklist.Warn, "as those of admin", "authentication", func(f *facts) { f.server.who.value = "admin" }},
	{"authentication", checklist.OK, "too old", "", func(f *facts) { f.server.who.value = "" }},
	{"authentication", checklist.Skip, "no connection", "", unsecured(nil)},

	{"permissions", checklist.Fail, "list clientmounts.dataworkflowservices.github.io in namespace compute-01, get nnfstorageprofiles.nnf.cray.hpe.com in all namespaces", "clientmountd-rbac.yaml", func(f *facts) {
		f.server.missing.value = []api.Permission{
			{Verb: "list", Group: api.GroupDWS, Resource: "clientmounts", Namespace: "compute-01"}, {Verb: "get", Group: api.GroupNNF, Resource: "nnfstorageprofiles"},
		}
	}},
	{"permissions", checklist.Fail, "cannot be checked", "API server", func(f *facts) { f.server.missing.err = errHang }},
	{"permissions", checklist.Skip, "does not accept the credentials", "", connection(func(c *kube.Connection) { c.Status = 401 })},

	{"versions", checklist.Fail, "serves no version", "that match", func(f *facts) { f.server.versions[1].err = fmt.Errorf("x: %w", kube.ErrNotServed) }},
	{"versions", checklist.Fail, "no answer", "API server", func(f *facts) { f.server.versions[0].err = errHang }},
	{"versions", checklist.Skip, "does not accept", "", connection(func(c *kube.Connection) { c.Status = 401 })},

	{"lvm", checklist.Fail, "missing: lvs, dmsetup", "install", func(f *facts) { f.missing = []string{"lvs", "dmsetup"} }},
	{"lvm", checklist.Warn, "missing: lvs", "install", both(lustre, func(f *facts) { f.missing, f.server = []string{"lvs"}, nil })},
	{"lvm", checklist.Fail, "lvs hangs: no answer within 4s", "nvme list", func(f *facts) { f.volumes = fact[[]node.LV]{err: errHang} }},
	{"lvm", checklist.Fail, "lvs hangs: not run, because an earlier lvchange still hangs (pid 7)", "nvme list", func(f *facts) { f.volumes = fact[[]node.LV]{err: hangError{"lvchange", 7}} }},
	{"lvm", checklist.Fail, "lvs hangs", "nvme list", func(f *facts) {
		f.volumes = fact[[]node.LV]{err: &node.CommandError{Line: "lvs", Err: errors.New("still running after SIGKILL as pid 9"), TimedOut: true, PID: 9}}
	}},
	{"lvm", checklist.Fail, "lvs failed", "run lvs", func(f *facts) { f.volumes = fact[[]node.LV]{err: errors.New("no JSON")} }},
	{"lvm", checklist.Warn, "printed messages", "run lvs", func(f *facts) { f.notes = []string{"an LVM tool printed messages"} }},

	{"lvm.conf", checklist.Fail, "report/prefixes=1", "lvm.conf", lvm("report/prefixes", "1")},
	{"lvm.conf", checklist.Fail, "global/test=1", "lvm.conf", lvm("global/test", "1")},
	{"lvm.conf", checklist.Fail, "global/activation=0", "lvm.conf", lvm("global/activation", "0")},
	{"lvm.conf", checklist.Fail, "devices/dir=/devices", "lvm.conf", lvm("devices/dir", "/devices")},
	{"lvm.conf", checklist.Fail, "devices/scan=/dev/disk", "lvm.conf", lvm("devices/scan", "/dev/disk")},
	{"lvm.conf", checklist.Fail, "activation/volume_list=system,@tag", "lvm.conf", lvm("activation/volume_list", "system", "@tag")},
	{"lvm.conf", checklist.Fail, "activation/read_only_volume_list=system", "lvm.conf", lvm("activation/read_only_volume_list", "system")},
	{"lvm.conf", checklist.Fail, "devices/global_filter rejects /dev/nvme0n1", "a|^/dev/nvme|", lvm("devices/global_filter", "a|/dev/sd|", "r|.*|")},
	{"lvm.conf", checklist.Fail, "devices/filter rejects /dev/nvme0n1", "a|^/dev/nvme|", both(lvm("devices/filter", "r|nvme|"), func(f *facts) { f.namespaces.value = nil })},
	{"lvm.conf", checklist.OK, "no setting", "", both(lvm("devices/filter", "a|by-id/nvme-|", "r|.*|"), func(f *facts) {
		f.aliases = map[string][]string{"/dev/nvme0n1": {"/dev/disk/by-id/nvme-x"}}
	})},
	{"lvm.conf", checklist.Warn, "cannot tell", "pvs -a", lvm("devices/filter", "a|(|")},
	{"lvm.conf", checklist.Fail, "/etc/lvm/devices/system.devices", "use_devicesfile=0", both(lvm("devices/use_devicesfile", "1"), func(f *facts) { f.devicesFile = true })},
	{"lvm.conf", checklist.Warn, "/etc/lvm/devices/system.devices", "use_devicesfile=0", both(lustre, lvm("devices/use_devicesfile", "1"), func(f *facts) { f.devicesFile, f.server = true, nil })},
	{"lvm.conf", checklist.OK, "no setting", "", lvm("devices/use_devicesfile", "1")},
	{"lvm.conf", checklist.Fail, "cannot be read", "lvmconfig", func(f *facts) { f.lvm = fact[node.LVMSettings]{err: errHang} }},
	{"lvm.conf", checklist.Skip, "not installed", "", func(f *facts) {
		f.lvm, f.missing = fact[node.LVMSettings]{err: errHang}, []string{"lvs"}
	}},

	{"device-mapper", checklist.Fail, "dm_mod is not loaded", "modprobe dm_mod", func(f *facts) { f.kernel.value.deviceMapper = false }},
	{"device-mapper", checklist.Warn, "dm_mod is not loaded", "modprobe dm_mod", both(lustre, func(f *facts) { f.kernel.value.deviceMapper, f.server = false, nil })},
	{"device-mapper", checklist.Warn, "dm_raid is not loaded", "modprobe dm_raid", func(f *facts) { f.kernel.value.raid = false }},
	{"device-mapper", checklist.Warn, "not known", "", func(f *facts) { f.kernel = fact[kernel]{err: errHang} }},

	{"nvme", checklist.Fail, "1 of 1 namespaces are missing: nqn.2014-08.org.example:rabbit namespace 12 of ClientMount job7-xfs", "on the rabbit", func(f *facts) { f.namespaces.value = nil }},
	{"nvme", checklist.Fail, "namespace 13 of ClientMount job8", "on the rabbit", func(f *facts) {
		o := new(dws.ClientMount)
		o.Name, o.UID, o.Spec.DesiredState = "job8", "other", dws.Mounted
		o.Spec.Mounts = []dws.Mount{{Type: dws.TypeRaw, Device: dws.Device{LVM: &dws.LVMDevice{NVMeInfo: []dws.NVMeNamespace{{DeviceSerial: nqn, NamespaceID: "13"}}}}}}
		f.server.objects.value = append(f.server.objects.value, o)
	}},
	{"nvme", checklist.OK, "ClientMounts need none", "", both(record(func(m *clientmount.MountRecord) { m.Unmounting = true }), func(f *facts) { f.namespaces.value = nil })},
	{"nvme", checklist.OK, "only ClientMounts with a record are known", "", func(f *facts) { f.server = nil }},
	{"nvme", checklist.Fail, "not known", "nvme list", func(f *facts) { f.namespaces = fact[[]node.Namespace]{err: errHang} }},

	{"locks", checklist.Fail, "programs that do not run: lvmlockd", "start corosync", both(shared, func(f *facts) { delete(f.programs.value, "lvmlockd") })},
	{"locks", checklist.Warn, "programs that do not run: lvmlockd", "start corosync", both(shared, record(func(m *clientmount.MountRecord) { m.Ready, m.Mounted = false, nil }), func(f *facts) { delete(f.programs.value, "lvmlockd") })},
	{"locks", checklist.Warn, "programs that do not run: corosync", "start corosync", func(f *facts) {
		o := new(dws.ClientMount)
		o.UID, o.Spec.DesiredState, o.Spec.Mounts = "other", dws.Mounted, []dws.Mount{{Type: dws.TypeGFS2}}
		f.server.objects.value = append(f.server.objects.value, o)
	}},
	{"locks", checklist.Fail, "use_lvmlockd=0", "lvm.conf", both(shared, lvm("global/use_lvmlockd", "0"))},
	{"locks", checklist.Warn, "not known", "", both(shared, func(f *facts) { f.programs = fact[map[string]bool]{err: errHang} })},

	{"lustre", checklist.Fail, "the kernel 6.1.0 has no module lustre", "install", both(lustre, func(f *facts) { f.kernel.value.lustre, f.kernel.value.lustreModules = false, false })},
	{"lustre", checklist.Fail, "lustre is not loaded", "modprobe lustre", both(lustre, func(f *facts) { f.kernel.value.lustre = false })},
	{"lustre", checklist.Warn, "lnet is not loaded", "modprobe lnet", both(lustre, func(f *facts) { f.kernel.value.lnet = false })},
	{"lustre", checklist.Fail, "LNet has no network", "lnet.conf", both(lustre, func(f *facts) { f.nids.value = "\n" })},
	{"lustre", checklist.Fail, "not known: IOC_LIBCFS_GET_NI error 100", "lnet.conf", both(lustre, func(f *facts) { f.nids.err = errors.New("IOC_LIBCFS_GET_NI error 100") })},
	{"lustre", checklist.Fail, "lctl list_nids hangs", "dmesg", both(lustre, func(f *facts) { f.nids.err = errHang })},
	{"lustre", checklist.Warn, "not known", "", both(lustre, func(f *facts) { f.kernel.err = errHang })},

	{"records", checklist.Fail, "cannot be read", "/run/clientmountd", func(f *facts) { f.records = fact[*records]{err: errHang} }},
	{"records", checklist.Fail, "record cannot be used: x is damaged", "unmount it, then remove the file", func(f *facts) {
		f.records.value.unreadable = []string{"record cannot be used: x is damaged; unmount it, then remove the file"}
	}},
	{"records", checklist.Warn, "the ClientMount job7-xfs no longer exists, but its mounts are recorded: " + path, "orphan", func(f *facts) { f.server.objects.value = nil }},

	{"mounts", checklist.Fail, path + " is recorded as mounted, but is not", "restart", func(f *facts) { f.mounts.value = f.mounts.value[1:] }},
	{"mounts", checklist.OK, "", "", both(record(func(m *clientmount.MountRecord) { m.Unmounting = true }), func(f *facts) { f.mounts.value = nil })},
	{"mounts", checklist.Warn, "/mnt/nnf/x (tmpfs, none) is mounted but has no record", "umount /mnt/nnf/x", func(f *facts) {
		f.mounts.value = append(f.mounts.value, node.Mount{Mountpoint: "/mnt/nnf/x", FSType: "tmpfs", Source: "none"})
	}},
	{"mounts", checklist.Warn, "/mnt/a b (xfs, " + device + ") is mounted but has no record", "umount '/mnt/a b'", func(f *facts) {
		f.mounts.value = append(f.mounts.value, node.Mount{Mountpoint: "/mnt/a b", FSType: "xfs", Source: device})
	}},
	{"mounts", checklist.Fail, "not known", "mountinfo", func(f *facts) { f.mounts = fact[[]node.Mount]{err: errHang} }},
	{"mounts", checklist.Skip, "records", "", func(f *facts) { f.records = fact[*records]{err: errHang} }},

	{"volumes", checklist.Warn, group + "/lv is active but has no record", "lvchange --activate n " + group + "/lv", func(f *facts) { f.records.value.list = nil }},
	{"volumes", checklist.OK, "0 active volumes", "", func(f *facts) { f.volumes.value[0].Attr = "-wi-------" }},
	{"volumes", checklist.Skip, "lvs", "", func(f *facts) { f.volumes = fact[[]node.LV]{err: errHang} }},
	{"volumes", checklist.Skip, "records", "", func(f *facts) { f.records = fact[*records]{err: errHang} }},

	{"commands", checklist.Fail, "umount /mnt/nnf/job7-0 (pid 3211) has been running for 16m0s and waits in the kernel in xfs_log_force", "/proc/3211/stack", marked(func(*node.Marked) {})},
	{"commands", checklist.Fail, "pid 3211", "drain the node", marked(func(m *node.Marked) { m.Killed = false })},
	{"commands", checklist.Fail, "pid 3211", "drain the node", marked(func(m *node.Marked) { m.Age = time.Second })},
	{"commands", checklist.Warn, "pid 3211", "drain the node", marked(func(m *node.Marked) { m.Killed, m.Age = false, time.Minute })},
	{"commands", checklist.OK, "", "", marked(func(m *node.Marked) { m.Killed, m.Age = false, time.Second })},
	{"commands", checklist.OK, "", "", marked(func(m *node.Marked) { m.Kernel, m.Killed = false, false })},
	{"commands", checklist.Warn, "whether clientmountd started it is not known", "stack", marked(func(m *node.Marked) { m.Unreadable = true })},
	{"commands", checklist.Fail, "the processes are not known", "ps -eo", func(f *facts) { f.marked.err = errHang }},
}

// Each check can fail, and reports what is wrong and what to do.
func TestChecks(t *testing.T) {
	seen := map[string]bool{}
	for _, tt := range cases {
		f := healthy(t)
		tt.change(f)
		found := false
		var got []string
		for _, c := range check(f) {
			if c.Name != tt.check {
				continue
			}
			got = append(got, fmt.Sprintf("%+v", c))
			found = found || c.State == tt.state && strings.Contains(c.Text, tt.text) && strings.Contains(c.Hint, tt.hint) && (tt.hint != "" || tt.state != checklist.OK || c.Hint == "")
		}
		if !found {
			t.Errorf("%s should be %s with %q and the hint %q:\n%s", tt.check, tt.state, tt.text, tt.hint, strings.Join(got, "\n"))
		}
		if tt.state != checklist.OK && tt.state != checklist.Skip {
			seen[tt.check] = true
		}
	}
	for _, c := range checks {
		if !seen[c.name] {
			t.Errorf("no case makes the check %s fail", c.name)
		}
	}
}

// Without any fact, no check panics or succeeds in a way that hides the failure.
func TestNothingKnown(t *testing.T) {
	f := &facts{now: now}
	f.unit.err, f.settings.err, f.ownNamespace.err, f.daemonNamespace.err, f.credentials.err = errHang, errHang, errHang, errHang, errHang
	f.lvm.err, f.volumes.err, f.namespaces.err, f.kernel.err, f.programs.err, f.nids.err = errHang, errHang, errHang, errHang, errHang, errHang
	f.records.err, f.mounts.err, f.marked.err = errHang, errHang, errHang
	for _, c := range check(f) {
		if c.State == checklist.OK {
			t.Errorf("%+v", c)
		}
	}
}

func TestCutDMName(t *testing.T) {
	for name, want := range map[string][2]string{
		strings.TrimPrefix(device, "/dev/mapper/"): {group, "lv"}, "a-b": {"a", "b"}, "a--b-c--d": {"a-b", "c-d"}, "a--b": {"", ""}, "": {"", ""},
	} {
		if vg, lv, ok := cutDMName(name); vg != want[0] || lv != want[1] || ok != (want[0] != "") {
			t.Errorf("%q: %q %q %v", name, vg, lv, ok)
		}
	}
}

// For a token of the account of this node, the check shows when it is renewed, and what the running
// daemon reports about that.
func TestTokenOfThisNode(t *testing.T) {
	issued := now.Add(-time.Hour)
	token := func(expires time.Time) string {
		return "x." + encode(fmt.Sprintf(`{"sub":"system:serviceaccount:compute-01:clientmountd","iat":%d,"exp":%d}`, issued.Unix(), expires.Unix())) + ".x"
	}
	const install = "nnf-deploy install --no-programs --identity per-node compute-01"
	for _, tt := range []struct {
		life  time.Duration
		token *mountstate.Token
		state checklist.State
		text  string
		hint  string
	}{
		{2 * time.Hour, nil, checklist.OK, "is renewed at 2026-11-30T12:", ""},
		{2 * time.Hour, &mountstate.Token{Condition: mountstate.TokenValid}, checklist.OK, "is renewed at", ""},
		{2 * time.Hour, &mountstate.Token{Condition: mountstate.TokenRetrying, Error: "no route"}, checklist.OK, "the daemon retries: no route", ""},
		{2 * time.Hour, &mountstate.Token{Condition: mountstate.TokenFailing, Error: "no route", Hint: "check it"}, checklist.Fail, "cannot renew the token: no route", "check it"},
		{2 * time.Hour, &mountstate.Token{Condition: mountstate.TokenUnsaved, Error: "full"}, checklist.Warn, "is not stored, so a restart would use an older one: full", "journalctl"},
		{2 * time.Hour, &mountstate.Token{Condition: mountstate.TokenExpired, Hint: install}, checklist.Fail, "the token has expired", install},
		{time.Minute, nil, checklist.Fail, "the token expired at 2026-11-30T11:01:00Z", install},
	} {
		f := healthy(t)
		f.credentials.value = withToken(t, token(issued.Add(tt.life)), kube.Renewal{Node: "compute-01", Daemon: "clientmountd", Directory: t.TempDir()})
		f.token = tt.token
		list := checkCredentials(f)
		if len(list) != 1 || list[0].state != tt.state || !strings.Contains(list[0].text, tt.text) || !strings.Contains(list[0].hint, tt.hint) {
			t.Errorf("%v: %+v", tt, list)
		}
	}
	// The API server refuses a token that has not expired: an installation without --force would keep it.
	f := healthy(t)
	f.connection.Status, f.server = http.StatusUnauthorized, nil
	f.credentials.value = withToken(t, token(now.Add(time.Hour)), kube.Renewal{Node: "compute-01", Daemon: "clientmountd", Directory: t.TempDir()})
	const replace = "nnf-deploy install --no-programs --force --identity per-node compute-01"
	if list := checkAuthentication(f); len(list) != 1 || list[0].state != checklist.Fail || !strings.Contains(list[0].hint, replace) {
		t.Errorf("%+v", list)
	}
}
