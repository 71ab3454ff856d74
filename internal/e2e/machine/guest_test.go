package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

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
	folder = "/folder"
	defer func() { folder = "" }()
	dir := t.TempDir()
	args, err := VMOptions{Attached: 1, Detached: 1}.arguments(dir, "/initrd")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(args, " ")
	for _, part := range []string{
		"-accel tcg", "nvme-ns,drive=d1,bus=nvme0,nsid=1,shared=on -drive", "nvme-ns,drive=d2,bus=nvme0,nsid=2,shared=on,detached=on",
		"snapshot=on", "-kernel /folder/vmlinuz",
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

// The ram disk is the one of the machine with the test's files behind it.
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
		t.Fatalf("%v; it begins with %.20q", err, data)
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
		t.Error("the tree is left behind: ", err)
	}
	g.files["no"] = in("such file")
	if err := g.initrd(in("initrd"), in("base")); err == nil {
		t.Error("a file that is missing is no error")
	}
}
