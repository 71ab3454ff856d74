package machine

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine/wire"
)

func TestUnitFile(t *testing.T) {
	for line, want := range map[string]bool{
		"/usr/lib/systemd/system/clientmountd.service:50: Unknown key name 'RestartSteps' in section 'Service', ignoring.":         true,
		"[/usr/lib/systemd/system/nnf-dm.service:36] Unknown lvalue 'RestartMaxDelaySec' in section 'Service'":                     true,
		"/etc/systemd/system/nnf-dm.service.d/50-nnf-deploy.conf:7: Invalid environment assignment, ignoring: x":                   true,
		"/usr/lib/systemd/system/nnf-dm.socket:12: ListenStream= references a path below legacy directory /var/run/, updating ...": true,
		"/usr/lib/systemd/system/sshd.service:50: Unknown key name 'X' in section 'Service', ignoring.":                            false,
		"clientmountd.service: Watchdog timeout (limit 2s)!":                                                                       false,
	} {
		if got := unitFile.MatchString(line); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}

func TestSystemdCgroups(t *testing.T) {
	const hybrid = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:3 - cgroup2 cgroup2 rw
`
	for name, test := range map[string]struct {
		own, mounts string
		want        []string
	}{
		"hybrid":       {"9:name=systemd:/\n1:cpu:/x\n0::/\n", hybrid, []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"}},
		"below":        {"9:name=systemd:/user/a\n0::/b:c\n", hybrid, []string{"/sys/fs/cgroup/systemd/user/a", "/sys/fs/cgroup/unified/b:c"}},
		"version 2":    {"0::/ci\n", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", []string{"/sys/fs/cgroup/ci"}},
		"part mounted": {"0::/ci/job\n", "30 23 0:26 /ci /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", []string{"/sys/fs/cgroup/job"}},
		"none":         {"1:cpu:/\n", hybrid, nil},
		"not mounted":  {"0::/\n", "1 2 0:1 / / rw - ext4 /dev/vda rw\ngarbage\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := systemdCgroups(test.own, test.mounts); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestRemoveTree(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "group")
	if err := os.MkdirAll(filepath.Join(dir, "payload", "system.slice", "a.service"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := removeTree(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Error("not removed:", err)
	}
	if err := removeTree(dir); err != nil {
		t.Error("removing a missing tree:", err)
	}
}

func TestGuestUnits(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "agent-built")
	if err := os.WriteFile(program, []byte("program"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := &guest{agent: program, at: "/run/e2e/agent", units: map[string]string{"a.service": unit("a", "After=b.service", "ExecStart=/x")}}
	g.network("127.0.0.1:6443")
	units := filepath.Join(dir, "units")
	if err := g.write(units, filepath.Join(dir, "in", "agent")); err != nil {
		t.Fatal(err)
	}
	for name, part := range map[string]string{
		"a.service":                                   "After=b.service\n[Service]\nExecStart=/x\n",
		"multi-user.target.wants/a.service":           "After=b.service",
		"e2e-api.service":                             "ExecStart=/run/e2e/agent forward 127.0.0.1:6443 10.0.2.2:6443",
		"multi-user.target.wants/e2e-network.service": "Type=oneshot",
		"../in/agent":                                 "program",
	} {
		text, err := os.ReadFile(filepath.Join(units, name))
		if err != nil || !strings.Contains(string(text), part) {
			t.Errorf("%s: %v, %q has no %q", name, err, text, part)
		}
	}
}

func TestNamespaces(t *testing.T) {
	cache = "/cache"
	defer func() { cache = "" }()
	dir := t.TempDir()
	args, err := VMOptions{Attached: 1, Detached: 1}.arguments(dir, "/initrd")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(args, " ")
	for _, part := range []string{
		"-accel tcg", "nvme-ns,drive=d1,bus=nvme0,nsid=1,shared=on -drive", "nvme-ns,drive=d2,bus=nvme0,nsid=2,shared=on,detached=on",
		"snapshot=on", "-kernel /cache/vmlinuz",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in %s", part, text)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, "namespace-2")); err != nil || st.Size() != 1<<30 {
		t.Error(st, err)
	}
	t.Setenv(AccelVar, "kvm")
	if args, err = (VMOptions{}).arguments(dir, "/initrd"); err != nil || !strings.Contains(strings.Join(args, " "), "-accel kvm ") {
		t.Error(args, err)
	}
}

// The ram disk is that of the machine, followed by an archive with the files of the test.
func TestInitrd(t *testing.T) {
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("not run: ", err)
	}
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{"base": "first archive", "agent": "program", "some.rpm": "payload of a package"} {
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g := &guest{agent: in("agent"), files: map[string]string{"rpm/some.rpm": in("some.rpm")}}
	if err := g.initrd(in("initrd"), in("base")); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(in("initrd"))
	rest, ok := strings.CutPrefix(string(data), "first archive")
	if err != nil || !ok {
		t.Fatalf("%v; it starts with %.20q", err, data)
	}
	list := exec.Command("cpio", "-i", "-t", "--quiet")
	list.Stdin = strings.NewReader(rest)
	out, err := list.Output()
	for _, file := range []string{"guest/e2e/agent\n", "guest/e2e/rpm/some.rpm\n"} {
		if err != nil || !strings.Contains(string(out), file) {
			t.Errorf("no %q in %s, %v", file, out, err)
		}
	}
	if _, err := os.Stat(in("initrd.tree")); !os.IsNotExist(err) {
		t.Error("the temporary tree was not removed: ", err)
	}
	g.files["no"] = in("such file")
	if err := g.initrd(in("initrd"), in("base")); err == nil {
		t.Error("no error for a missing file")
	}
}

// pipe returns a link, and the other end of its connection for the test.
func pipe(t *testing.T) (*link, *wire.Writer, <-chan wire.Message) {
	t.Helper()
	host, guest := net.Pipe()
	t.Cleanup(func() { host.Close(); guest.Close() })
	got := make(chan wire.Message, 16)
	go func() {
		_ = wire.Read(guest, func(m wire.Message) { got <- m })
	}()
	l, err := newLink(host)
	if err != nil {
		t.Fatal(err)
	}
	w, err := wire.NewWriter(guest)
	if err != nil {
		t.Fatal(err)
	}
	return l, w, got
}

type result struct {
	out  string
	code int
	err  error
}

func start(ctx context.Context, l *link, script, stdin string) <-chan result {
	c := make(chan result, 1)
	go func() {
		out, code, err := l.run(ctx, script, []byte(stdin))
		c <- result{out, code, err}
	}()
	return c
}

func TestOutputAndCode(t *testing.T) {
	l, w, got := pipe(t)
	r := start(t.Context(), l, "cat", "hello")
	if m := <-got; string(m.In) != "hello" {
		t.Fatalf("%+v, want the input first", m)
	}
	m := <-got
	if m.Script != "cat" {
		t.Fatalf("%+v", m)
	}
	for _, reply := range []wire.Message{{Call: 99, Out: []byte("other call")}, {Call: m.Call, Out: []byte("hel")}, {Call: m.Call, Out: []byte("lo")}, {Call: m.Call, Done: true, Code: 3}} {
		_ = w.Send(reply)
	}
	if r := <-r; r.out != "hello" || r.code != 3 || r.err != nil {
		t.Errorf("%+v", r)
	}
}

func TestContextKillsScript(t *testing.T) {
	l, w, got := pipe(t)
	ctx, cancel := context.WithCancel(t.Context())
	r := start(ctx, l, "sleep 100", "")
	m := <-got
	_ = w.Send(wire.Message{Call: m.Call, Out: []byte("so far")})
	cancel()
	if r := <-r; !errors.Is(r.err, context.Canceled) {
		t.Errorf("%+v", r)
	}
	if m := <-got; !m.Kill {
		t.Errorf("%+v, want the script to be killed", m)
	}
}

// A reboot ends running scripts, and the link stays usable.
func TestReboot(t *testing.T) {
	l, w, got := pipe(t)
	_ = w.Send(wire.Message{Hello: "one"})
	if err := l.awaitBoot(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	r := start(t.Context(), l, "reboot", "")
	<-got
	second := make(chan error, 1)
	go func() { second <- l.awaitBoot(t.Context(), 2) }()
	_ = w.Send(wire.Message{Hello: "two"})
	if r := <-r; !errors.Is(r.err, errRebooted) {
		t.Errorf("%+v", r)
	}
	if err := <-second; err != nil || l.bootCount() != 2 {
		t.Error(err, l.bootCount())
	}
	after := start(t.Context(), l, "true", "")
	m := <-got
	_ = w.Send(wire.Message{Call: m.Call, Done: true})
	if r := <-after; r.err != nil {
		t.Error(r.err)
	}
}

func TestNoBoot(t *testing.T) {
	l, _, _ := pipe(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := l.awaitBoot(ctx, 1); err == nil || !strings.Contains(err.Error(), "boot number 1") {
		t.Error(err)
	}
	l.conn.Close()
	if err := l.awaitBoot(t.Context(), 1); err == nil {
		t.Error("a boot over a closed connection")
	}
	if _, _, err := l.run(t.Context(), "true", nil); err == nil {
		t.Error("a script over a closed connection")
	}
}
