package doctor

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/text/checklist"
	units "github.com/compute-daemons/compute-daemons/systemd"
)

// machineRoot is a tree with the files of a node, and a Runner with the output of its programs.
type machineRoot struct {
	*testing.T
	dir     string            // root of the system
	config  string            // of the daemon
	token   string            // file
	outputs map[string]string // by start of the command line
}

// Run implements node.Runner.
func (r *machineRoot) Run(ctx context.Context, c node.Command) (node.Result, error) {
	line := c.String()
	if !slices.Contains(c.Env, mark+"=1") || !strings.HasPrefix(c.Program, "/") || c.Timeout == 0 && c.Argv[0] != "systemctl" {
		r.Errorf("%s: %+v", line, c)
	}
	for start, out := range r.outputs {
		if strings.HasPrefix(line, start) {
			return node.Result{Stdout: out}, nil
		}
	}
	return node.Result{}, &node.CommandError{Line: line, Err: errors.New("no output recorded")}
}

const mountinfo = `25 1 254:0 / / rw,noatime shared:1 - ext4 /dev/vda rw
50 25 253:3 / /mnt/nnf/job7-0 rw,nosuid,nodev shared:9 - xfs /dev/mapper/11110000--0000--4000--8000--00000000000b_0_1-lv rw
51 25 0:60 / /mnt/home rw shared:10 - nfs4 home:/ rw
`

// newMachineRoot returns a node on which everything is fine, with one mount.
func newMachineRoot(t *testing.T, server *httptest.Server) *machineRoot {
	t.Helper()
	r := &machineRoot{T: t, dir: t.TempDir()}
	for file, text := range map[string]string{
		"proc/1/mountinfo": mountinfo, "proc/self/mountinfo": mountinfo, "proc/4711/mountinfo": mountinfo,
		"proc/misc": "236 device-mapper\n", "proc/uptime": "1000.00 900.00\n", "proc/sys/kernel/osrelease": "6.1.0-39\n", "proc/version": "Linux version 6.1.0-39\n",
		"lib/modules/6.1.0-39/modules.dep": "kernel/fs/xfs/xfs.ko:\n", "etc/os-release": "ID=debian\n",
		"sys/module/dm_raid/refcnt":                        "0\n",
		"sys/class/nvme/nvme0/subsysnqn":                   nqn + "\n",
		"sys/class/nvme/nvme0/nvme0n1/nsid":                "12\n",
		systemd.PackageDirectory + "/clientmountd.service": units.ClientmountdService,
		"run/systemd/system/x":                             "",
	} {
		write(t, r.dir, file, text, 0o644)
	}
	for _, p := range append(slices.Clone(lvmPrograms), "lvmconfig", "systemctl", "journalctl", "lsblk", "nvme", "pvs", "lvm", "lctl", "dlm_tool") {
		write(t, r.dir, "usr/sbin/"+p, "", 0o755)
	}
	runtime := filepath.Join(t.TempDir(), "clientmountd")
	f := healthy(t)
	record, err := json.Marshal(f.records.value.list[0])
	if err != nil {
		t.Fatal(err)
	}
	write(t, runtime, "mounts/"+uid+".json", string(record), 0o600)

	dir := t.TempDir()
	host := "host.invalid:1"
	write(t, dir, "cert", authority(), 0o644)
	if server != nil {
		u, err := url.Parse(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		host = u.Host
		write(t, dir, "cert", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})), 0o644)
	}
	name, port, _ := strings.Cut(host, ":")
	r.token = write(t, dir, "token", jwt(time.Time{}), 0o600)
	r.config = write(t, dir, "config.toml", fmt.Sprintf("[kubernetes]\nservice_host = %q\nservice_port = %q\ntoken_file = %q\ncert_file = %q\n[node]\nname = \"compute-01\"\n",
		name, port, r.token, filepath.Join(dir, "cert")), 0o644)

	out, err := os.ReadFile("../../node/testdata/lvm/lvmconfig-2.03.16")
	if err != nil {
		t.Fatal(err)
	}
	unit := systemd.PackageDirectory + "/clientmountd.service"
	r.outputs = map[string]string{
		"lvmconfig --typeconfig full": string(out),
		"lvs --nolock --config":       `{"report":[{"lv":[{"vg_name":"` + group + `","lv_name":"lv","lv_attr":"-wi-ao----"}]}]}`,
		// As systemd 252 prints them.
		"systemctl show --property=LoadState": "Result=success\nMainPID=4711\nStatusText=1 mount\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n",
		"systemctl show --property=ExecStart": "RuntimeDirectory=clientmountd\nExecStart={ path=/usr/bin/clientmountd ; argv[]=/usr/bin/clientmountd --config=" + r.config + " --runtime-directory=" + runtime + " ; ignore_errors=no ; pid=4711 }\nEnvironment=GOMAXPROCS=1\n",
		"systemctl show --property=FragmentPath": "TimeoutStopUSec=11min\nMemoryHigh=2147483648\nMemoryMax=4294967296\nRuntimeDirectoryPreserve=yes\nKillMode=mixed\nEnvironment=GOMAXPROCS=1\nLoadState=loaded\nFragmentPath=" +
			unit + "\nDropInPaths=\nNeedDaemonReload=no\n",
		"journalctl": "a record\n", "lsblk": "NAME\n", "nvme": "Node\n", "pvs": "PV\n", "lvm ": "LVM version\n", "vgs": "VG\n", "lvs --nolock -a": "LV\n",
	}
	return r
}

func (r *machineRoot) options() Options {
	s := clientmount.Program().Service
	s.Name, s.Version = "clientmountd", "v1.2.3"
	s.Machine.UID = func() int { return 0 }
	return Options{Service: s, Root: r.dir, Exec: r, Environ: []string{"PATH=.:bin:/bin"}}
}

// run returns the results by check: the worst state and all texts.
func (r *machineRoot) run(o Options) map[string]checklist.Check {
	r.Helper()
	worst := map[string]checklist.Check{}
	rank := []checklist.State{checklist.Skip, checklist.OK, checklist.Warn, checklist.Fail}
	for _, c := range Run(r.Context(), o) {
		if old, ok := worst[c.Name]; !ok || slices.Index(rank, c.State) > slices.Index(rank, old.State) {
			worst[c.Name] = c
		}
	}
	return worst
}

// apiServer answers like an API server whose account has all permissions, except for denied.
func apiServer(t *testing.T, denied string, change func(http.Header)) *httptest.Server {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if change != nil {
			change(w.Header())
		}
		switch p := q.URL.Path; {
		case p == "/version":
			fmt.Fprint(w, `{"major":"1"}`)
		case strings.HasSuffix(p, "/selfsubjectreviews"):
			fmt.Fprint(w, `{"status":{"userInfo":{"username":"system:serviceaccount:nnf-system:nnf-clientmount"}}}`)
		case strings.HasSuffix(p, "/selfsubjectaccessreviews"):
			var review struct {
				Spec struct{ ResourceAttributes map[string]string }
			}
			if err := json.NewDecoder(q.Body).Decode(&review); err != nil {
				t.Error(err)
			}
			at := review.Spec.ResourceAttributes
			if (at["resource"] == "clientmounts") != (at["namespace"] == "compute-01") {
				t.Errorf("checked %v", at)
			}
			fmt.Fprintf(w, `{"status":{"allowed":%v}}`, at["verb"] != denied)
		case p == "/apis/"+api.GroupDWS+"/v1alpha7":
			fmt.Fprint(w, `{"resources":[{"name":"clientmounts"}]}`)
		case p == "/apis/"+api.GroupNNF+"/v1alpha11":
			fmt.Fprint(w, `{"resources":[{"name":"nnfstorageprofiles"}]}`)
		case p == "/apis/"+api.GroupDWS+"/v1alpha7/namespaces/compute-01/clientmounts":
			fmt.Fprintf(w, `{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"job7-xfs","uid":%q},"spec":{"desiredState":"mounted"}}]}`, uid)
		default:
			t.Errorf("requested %s", p)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func TestRun(t *testing.T) {
	r := newMachineRoot(t, apiServer(t, "", nil))
	for name, c := range r.run(r.options()) {
		want := checklist.OK
		if name == "locks" || name == "lustre" || name == "nnf-dm" {
			want = checklist.Skip
		}
		if c.State != want {
			t.Errorf("%+v", c)
		}
	}
}

// Facts that the sources collect make the checks fail.
func TestRunFindsProblems(t *testing.T) {
	for _, tt := range []struct {
		check  string
		state  checklist.State
		text   string
		change func(r *machineRoot)
	}{
		{"configuration", checklist.Fail, "nonsense", func(r *machineRoot) { write(r.T, filepath.Dir(r.config), "config.toml", "nonsense = 1\n", 0o644) }},
		{"credentials", checklist.Warn, "readable by users other", func(r *machineRoot) {
			if err := os.Chmod(r.token, 0o644); err != nil {
				r.Fatal(err)
			}
		}},
		{"credentials", checklist.Fail, "the token expired at", func(r *machineRoot) {
			write(r.T, filepath.Dir(r.token), "token", jwt(time.Now().Add(-time.Hour)), 0o600)
		}},
		{"credentials", checklist.Warn, "the token expires in 59m", func(r *machineRoot) {
			write(r.T, filepath.Dir(r.token), "token", jwt(time.Now().Add(time.Hour)), 0o600)
		}},
		{"credentials", checklist.Fail, "base64", func(r *machineRoot) {
			write(r.T, filepath.Dir(r.token), "token", base64.StdEncoding.EncodeToString([]byte(encode(`{"alg":"RS256"}`)+".e30.x")), 0o600)
		}},
		{"credentials", checklist.Fail, "systemd passes the token only when it starts the service", func(r *machineRoot) {
			for line, out := range r.outputs {
				r.outputs[line] = strings.Replace(out, "/usr/bin/clientmountd --config", "/usr/bin/clientmountd --service-token-file=${CREDENTIALS_DIRECTORY}/service.token --config", 1)
			}
		}},
		{"namespace", checklist.Fail, "mount id of / is 99 in process 4711 and 25 in process 1", func(r *machineRoot) {
			write(r.T, r.dir, "proc/4711/mountinfo", strings.Replace(mountinfo, "25 1", "99 1", 1), 0o644)
		}},
		{"unit", checklist.Fail, "x.conf:2: ProtectSystem=full", func(r *machineRoot) {
			const file = systemd.UnitDirectory + "/clientmountd.service.d/x.conf"
			write(r.T, r.dir, file, "[Service]\nProtectSystem=full\n", 0o644)
			for line, out := range r.outputs {
				r.outputs[line] = strings.Replace(out, "DropInPaths=\n", "DropInPaths="+file+"\n", 1)
			}
		}},
		{"unit", checklist.Warn, "overrides the unit of the package", func(r *machineRoot) {
			write(r.T, r.dir, systemd.UnitDirectory+"/clientmountd.service", "[Service]\n", 0o644)
		}},
		{"lvm", checklist.Fail, "missing: dmsetup", func(r *machineRoot) { _ = os.Remove(r.dir + "/usr/sbin/dmsetup") }},
		{"lvm", checklist.Fail, "no output recorded", func(r *machineRoot) { delete(r.outputs, "lvs --nolock --config") }},
		{"lvm.conf", checklist.Fail, "report/prefixes=1", func(r *machineRoot) {
			r.outputs["lvmconfig --typeconfig full"] = strings.Replace(r.outputs["lvmconfig --typeconfig full"], "prefixes=0", "prefixes=1", 1)
		}},
		{"lvm.conf", checklist.Fail, "system.devices", func(r *machineRoot) {
			write(r.T, r.dir, "etc/lvm/devices/system.devices", "", 0o600)
			r.outputs["lvmconfig --typeconfig full"] = strings.Replace(r.outputs["lvmconfig --typeconfig full"], "use_devicesfile=0", "use_devicesfile=1", 1)
		}},
		{"device-mapper", checklist.Fail, "dm_mod", func(r *machineRoot) { write(r.T, r.dir, "proc/misc", "", 0o644) }},
		{"nvme", checklist.Fail, "namespace 12", func(r *machineRoot) { write(r.T, r.dir, "sys/class/nvme/nvme0/nvme0n1/nsid", "13\n", 0o644) }},
		{"lustre", checklist.OK, "10.0.0.7@tcp", func(r *machineRoot) {
			write(r.T, r.dir, "sys/module/lnet/refcnt", "1\n", 0o644)
			r.outputs["lctl list_nids"] = "10.0.0.7@tcp\n"
		}},
		{"mounts", checklist.Warn, "/mnt/nnf/x", func(r *machineRoot) {
			write(r.T, r.dir, "proc/self/mountinfo", mountinfo+"52 25 0:61 / /mnt/nnf/x rw - tmpfs none rw\n", 0o644)
		}},
		{"mounts", checklist.Fail, "is recorded as mounted, but is not", func(r *machineRoot) {
			write(r.T, r.dir, "proc/self/mountinfo", "25 1 254:0 / / rw - ext4 /dev/vda rw\n", 0o644)
		}},
		{"volumes", checklist.Warn, "_9/lv is active", func(r *machineRoot) {
			r.outputs["lvs --nolock --config"] = `{"report":[{"lv":[{"vg_name":"11110000-0000-4000-8000-00000000000b_0_9","lv_name":"lv","lv_attr":"-wi-a-----"}]}]}`
		}},
		{"commands", checklist.Fail, "umount /mnt/nnf/job7-0 (pid 3211)", func(r *machineRoot) {
			r.process(3211, "umount", clientmount.MarkVariable+"="+uid, "umount\x00/mnt/nnf/job7-0\x00")
		}},
		{"lvm", checklist.Fail, "an earlier lvs still hangs (pid 3212)", func(r *machineRoot) { r.process(3212, "lvs", mark+"=1", "lvs\x00") }},
	} {
		t.Run(tt.check+" "+tt.text, func(t *testing.T) {
			r := newMachineRoot(t, nil)
			tt.change(r)
			o := r.options()
			o.Offline = true
			if c := r.run(o)[tt.check]; c.State != tt.state || !strings.Contains(c.Text, tt.text) {
				t.Errorf("%+v", c)
			}
		})
	}
}

// process adds a process of this user in state D.
func (r *machineRoot) process(pid int, comm, environ, line string) {
	dir := fmt.Sprintf("proc/%d/", pid)
	user := os.Geteuid()
	write(r.T, r.dir, dir+"stat", fmt.Sprintf("%d (%s) D 1 %d 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 1000 0\n", pid, comm, pid), 0o644)
	write(r.T, r.dir, dir+"status", fmt.Sprintf("Uid:\t%d\t%d\t%d\t%d\nSigPnd:\t0000000000000100\n", user, user, user, user), 0o644)
	write(r.T, r.dir, dir+"environ", environ+"\x00", 0o644)
	write(r.T, r.dir, dir+"cmdline", line, 0o644)
	write(r.T, r.dir, dir+"comm", comm+"\n", 0o644)
	write(r.T, r.dir, dir+"stack", "[<0>] xfs_log_force+0x1/0x2\n", 0o644)
	write(r.T, r.dir, dir+"wchan", "xfs_log_force", 0o644)
}

func TestRunAgainstServer(t *testing.T) {
	for _, tt := range []struct {
		name, check string
		state       checklist.State
		text        string
		denied      string
		header      func(http.Header)
		change      func(r *machineRoot)
	}{
		{name: "missing verb", check: "permissions", state: checklist.Fail, text: "watch clientmounts.dataworkflowservices.github.io in namespace compute-01", denied: "watch"},
		{name: "clock", check: "clock", state: checklist.Fail, text: "ahead of", header: func(h http.Header) {
			h.Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		}},
		{name: "other CA", check: "tls", state: checklist.Fail, text: "not signed by the CA", change: func(r *machineRoot) {
			write(r.T, filepath.Dir(r.token), "cert", otherAuthority(r.T), 0o644)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newMachineRoot(t, apiServer(t, tt.denied, tt.header))
			if tt.change != nil {
				tt.change(r)
			}
			if c := r.run(r.options())[tt.check]; c.State != tt.state || !strings.Contains(c.Text, tt.text) {
				t.Errorf("%+v", c)
			}
		})
	}
}

// If nothing answers, a run takes less than 10 seconds and reports what hangs.
func TestNothingAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		r := newMachineRoot(t, nil)
		o := r.options()
		o.Offline, o.Config = true, r.config
		o.Exec = runs(func() { <-hang }) // ignores its context and its limit, like a program in state D
		began := time.Now()
		list := Run(t.Context(), o)
		took := time.Since(began)
		close(hang)
		if took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		failed := map[string]bool{}
		for _, c := range list {
			if c.State == checklist.Fail && strings.Contains(c.Text, "no answer within") {
				failed[c.Name] = true
			}
		}
		for _, name := range []string{"unit", "lvm", "lvm.conf"} {
			if !failed[name] {
				t.Errorf("%s does not fail: %+v", name, list)
			}
		}
	})
}

type runs func()

func (f runs) Run(context.Context, node.Command) (node.Result, error) { f(); return node.Result{}, nil }

// A file from which a read blocks does not block a run.
func TestFileHangs(t *testing.T) {
	r := newMachineRoot(t, nil)
	file := r.dir + "/proc/misc"
	if err := errors.Join(os.Remove(file), unix.Mkfifo(file, 0o600)); err != nil {
		t.Fatal(err)
	}
	get := source(t.Context(), time.Now().Add(50*time.Millisecond), func(context.Context) (kernel, error) { return newMachine(r.options()).kernel(), nil })
	if got := get(); !errors.As(got.err, new(timeoutError)) {
		t.Errorf("%+v", got)
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0) // end the reader
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}
