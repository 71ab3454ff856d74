package fleet

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// The files of a site for its existing installer: daemons whose names differ from those of their
// programs, an entry with only an account, arguments and environment; and the
// SystemConfiguration.
const daemonsFile = `daemons:
- name: nnf-fence
  serviceAccount: {name: nnf-fencing-agent, namespace: nnf-system}
- name: nnf-data-movement
  bin: nnf-dm
  buildCmd: make build-daemon
  repository: nnf-dm
  path: bin/
  serviceAccount: {name: nnf-dm-daemon, namespace: nnf-dm-system}
  extraArgs: --kubernetes-qps 50 --kubernetes-burst 100
  env:
  - {name: GOMAXPROCS, value: "5"}
- name: client-mount
  bin: clientmountd
  buildCmd: make build-daemon
  repository: nnf-sos
  path: bin/
  serviceAccount: {name: nnf-clientmount, namespace: nnf-system}
  env:
  - {name: GOGC, value: "off"}
  - {name: HTTP2_PING_TIMEOUT_SECONDS, value: "60"}
`

const systemFile = `apiVersion: dataworkflowservices.github.io/v1alpha7
kind: SystemConfiguration
metadata: {name: default, namespace: default}
spec:
  ports: [5000-5999]
  externalComputeNodes: [{name: compute-02}]
  storageNodes:
  - type: Rabbit
    name: rabbit-01
    computesAccess: [{index: 0, name: compute-01}]
`

// A site migrates from the older installer with its existing files.
func TestExistingFiles(t *testing.T) {
	f := New(t, 2)
	older, newer := f.Releases()
	f.Distribution(f.Nodes...)
	f.Fixture.Apply(lab.Object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": "nnf-fencing-agent", "namespace": "nnf-system"}})
	f.Fixture.Apply(lab.Object{
		"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
		"metadata": map[string]any{"name": "nnf-fencing-agent", "namespace": "nnf-system", "annotations": map[string]any{"kubernetes.io/service-account.name": "nnf-fencing-agent"}},
	})
	// On one node, the older installer has installed our programs.
	for _, o := range olders(f, older.Programs) {
		o.install(f, f.Nodes[0])
	}
	files := []string{"--daemons", f.write("daemons.yaml", 0o600, daemonsFile), "--system-config", f.write("system.yaml", 0o600, systemFile)}
	install := append(newer.PackageArguments(), files...)
	expect(t, f.DeployJSON("install", install...), 0, all(f.Nodes, "ok"))
	for _, n := range f.Nodes {
		if got := n.Release(newer); got != newer.Version {
			t.Errorf("%s has %s", n.Name, got)
		}
		if got := n.Do("stat -c '%n %a %U:%G' /etc/nnf-fence/service.token /etc/nnf-data-movement/service.token /etc/client-mount/service.token"); got !=
			"/etc/nnf-fence/service.token 600 root:root\n/etc/nnf-data-movement/service.token 640 root:nnf-dm\n/etc/client-mount/service.token 600 root:root" {
			t.Errorf("%s: %s", n.Name, got)
		}
		n.Do("runuser -u alice -- nnf-dmctl version")
		if got := n.Process("nnf-dm"); !contains(got, "/usr/bin/nnf-dm --kubernetes-qps 50 --kubernetes-burst 100") {
			t.Errorf("%s: nnf-dm runs as %q", n.Name, got)
		}
		env := n.Do(`tr '\0' '\n' </proc/$(systemctl show --value -p MainPID clientmountd)/environ`) + "\n"
		if !contains(env, "GOGC=off\n") || !contains(env, "HTTP2_PING_TIMEOUT_SECONDS=60\n") {
			t.Errorf("%s: the environment of clientmountd is %s", n.Name, env)
		}
		if path := n.Property("clientmountd", "FragmentPath"); strings.HasPrefix(path, "/etc/") {
			t.Errorf("%s: the unit is still %s", n.Name, path)
		}
		if drops := n.Property("clientmountd", "DropInPaths"); contains(drops, "override.conf") {
			t.Errorf("%s: the older installer's drop-in is still used: %s", n.Name, drops)
		}
		n.serves("files")
	}
	before := processes(f.Nodes)
	expect(t, f.DeployJSON("install", install...), 0, all(f.Nodes, "unchanged"))
	for name, now := range processes(f.Nodes) {
		if now != before[name] {
			t.Errorf("%s: %q before, %q now", name, before[name], now)
		}
	}
	expect(t, f.DeployJSON("uninstall", files...), 0, all(f.Nodes, "ok"))
	for _, n := range f.Nodes {
		if left := n.Do("ls -d /etc/*/service.* 2>/dev/null || :"); left != "" {
			t.Errorf("%s: left behind: %s", n.Name, left)
		}
	}
}

// An administrator who cannot log in as root uses sudo.
func TestSudo(t *testing.T) {
	f := New(t, 2)
	older, _ := f.Releases()
	f.Distribution(f.Nodes...)
	for _, n := range f.Nodes {
		n.Put("/etc/ssh/e2e/sshd_config", 0o644, []byte(strings.Replace(sshdConfig, "prohibit-password", "no", 1)))
		n.Do("usermod -p '*' alice") // without a password, but not locked
	}
	a := f.DeployJSON("install", older.PackageArguments()...)
	expect(t, a, 1, all(f.Nodes, "failed"))
	if o := a.Nodes[f.Nodes[0].Name]; !contains(o.Cause, "login") || o.Hint == "" {
		t.Errorf("%+v", o)
	}
	a = f.DeployJSON("install", append(older.PackageArguments(), "--user", "alice")...)
	expect(t, a, 1, all(f.Nodes, "failed"))
	if o := a.Nodes[f.Nodes[0].Name]; !contains(o.Cause, "root") || !contains(o.Hint, "--sudo") {
		t.Errorf("%+v", o)
	}
	// On one node, sudo asks for a password.
	f.Nodes[1].Do("rm /etc/sudoers.d/alice && echo 'alice ALL=(ALL) ALL' >/etc/sudoers.d/alice")
	a = f.DeployJSON("install", append(older.PackageArguments(), "--user", "alice", "--sudo")...)
	expect(t, a, 1, map[string]string{f.Nodes[0].Name: "ok", f.Nodes[1].Name: "failed"})
	healthy(t, f, f.Nodes[0], older)
	if o := a.Nodes[f.Nodes[1].Name]; !contains(o.Hint, "NOPASSWD") {
		t.Errorf("%+v", o)
	}
}

// broken builds packages of a release whose clientmountd exits immediately.
func (f *Fleet) broken() (packages []string) {
	f.t.Helper()
	_, newer := f.Releases() // whose build directory still exists
	work, out := filepath.Join(f.Dir, "broken"), filepath.Join(f.Dir, "broken-packages")
	if r := f.Run(nil, "cp", "-a", filepath.Dir(filepath.Dir(newer.Programs)), work); r.Code != 0 {
		f.t.Fatalf("%+v", r)
	}
	program := filepath.Join(work, "usr/bin/clientmountd")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho 'out of order' >&2\nexit 3\n"), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Mkdir(out, 0o755); err != nil {
		f.t.Fatal(err)
	}
	args := []string{"--config", filepath.Join(f.repository(), "nfpm.yaml"), "rpm", "--root", work, out}
	cmd := f.Command(f.t.Context(), filepath.Join(f.repository(), "bin/packager"), append(args, daemons...)...)
	cmd.Env = append(cmd.Env, "RPM_VERSION=0.3.0", "RPM_RELEASE=1", "GOARCH="+runtime.GOARCH)
	if output, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("packager: %v: %s", err, output)
	}
	packages, err := filepath.Glob(filepath.Join(out, "*.rpm"))
	if err != nil || len(packages) != len(daemons) {
		f.t.Fatalf("the packages are %q, %v", packages, err)
	}
	return packages
}

// A release that does not start is installed only on the first nodes, which then get the
// previous release back.
func TestBrokenRelease(t *testing.T) {
	f := New(t, 3)
	older, newer := f.Releases()
	f.Distribution(f.Nodes...)
	expect(t, f.DeployJSON("install", older.PackageArguments()...), 0, all(f.Nodes, "ok"))
	var bad []string
	for _, p := range f.broken() {
		bad = append(bad, "--rpm", p)
	}
	tried, others := f.Nodes[0], f.Nodes[1:]
	before := processes(others)
	a := f.DeployJSON("install", append(bad, "--batch", "1", "--max-failures", "1")...)
	want := all(f.Nodes, "skipped")
	want[tried.Name] = "failed"
	expect(t, a, 1, want)
	if o := a.Nodes[tried.Name]; !contains(o.Cause, "not ready") || !contains(o.Cause, "the previous state was restored") || !contains(strings.Join(o.Journal, "\n"), "out of order") {
		t.Errorf("%+v", o)
	}
	for name, now := range processes(others) {
		if now != before[name] {
			t.Errorf("%s: %q before, %q now", name, before[name], now)
		}
	}
	for _, n := range f.Nodes {
		healthy(t, f, n, older)
		n.Do("rpm -q clientmountd-0.1.0 nnf-dm-0.1.0")
	}
	tried.serves("restored")
	expect(t, f.DeployJSON("install", newer.PackageArguments()...), 0, all(f.Nodes, "ok"))
	for _, n := range f.Nodes {
		healthy(t, f, n, newer)
	}
}

// Nodes that are too slow fail after their time limits, and do not delay the other nodes.
func TestTimeouts(t *testing.T) {
	f := New(t, 3)
	older, _ := f.Releases()
	f.Distribution(f.Nodes...)
	silent, crawling, good := f.Nodes[0], f.Nodes[1], f.Nodes[2]
	f.Set(silent, Faults{Silent: true})
	f.Set(crawling, Faults{Rate: 100 << 10}) // minutes
	a := f.DeployJSON("install", append(older.PackageArguments(), "--connect-timeout", "2s", "--node-timeout", "45s")...)
	expect(t, a, 1, map[string]string{silent.Name: "failed", crawling.Name: "failed", good.Name: "ok"})
	for n, cause := range map[*Node]string{silent: "timed out", crawling: "--node-timeout"} {
		if o := a.Nodes[n.Name]; !contains(o.Cause, cause) || o.Hint == "" {
			t.Errorf("%s: %+v", n.Name, o)
		}
		f.Set(n, Faults{})
		n.settled()
		if got := n.Release(older); got != "none" {
			t.Errorf("%s has %s", n.Name, got)
		}
	}
	healthy(t, f, good, older)
	expect(t, f.DeployJSON("install", older.PackageArguments()...), 0, map[string]string{silent.Name: "ok", crawling.Name: "ok", good.Name: "unchanged"})
	for _, n := range f.Nodes {
		healthy(t, f, n, older)
	}
}

// nnf-deploy works with features of the administrator's ssh: shared connections that stay open,
// and jump hosts.
func TestAdministratorsSSH(t *testing.T) {
	f := New(t, 3)
	f.Distribution(f.Nodes...)
	older, _ := f.Releases()

	t.Run("shared connections", func(t *testing.T) {
		f := f.For(t)
		shared := []string{"--ssh-option", "ControlMaster=auto", "--ssh-option", "ControlPath=" + filepath.Join(f.Dir, "%h-%p"), "--ssh-option", "ControlPersist=120"}
		defer func() {
			for _, n := range f.Nodes {
				f.Run(nil, "ssh", "-F", f.Config(), "-o", "ControlPath="+filepath.Join(f.Dir, "%h-%p"), "-O", "exit", n.Name)
			}
		}()
		f.Connections()
		expect(t, f.DeployJSON("install", append(older.PackageArguments(), shared...)...), 0, all(f.Nodes, "ok"))
		expect(t, f.DeployJSON("install", append(older.PackageArguments(), shared...)...), 0, all(f.Nodes, "unchanged"))
		for name, n := range f.Connections() {
			if n != 1 {
				t.Errorf("%s: %d connections for two runs, want 1", name, n)
			}
		}
	})

	t.Run("jump host", func(t *testing.T) {
		f := f.For(t)
		gate, behind := f.Nodes[0], f.Nodes[1]
		f.Connections()
		a := f.DeployJSON("install", append(older.PackageArguments(), "--ssh-option", "ProxyJump="+gate.Name, "--dry-run", behind.Name)...)
		expect(t, a, 0, map[string]string{behind.Name: "unchanged"})
		if n := f.Connections(); n[gate.Name] != 1 || n[behind.Name] != 1 {
			t.Errorf("connections: %v, want one to each of %s and %s", n, gate.Name, behind.Name)
		}
		for _, n := range []*Node{gate, behind} {
			healthy(t, f, n, older)
		}
	})
}
