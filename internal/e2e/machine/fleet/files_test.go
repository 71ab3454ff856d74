package fleet

import (
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// The files that a site has for its present installer: daemons with names that
// differ from their programs', one that is only an account, arguments and
// environment; and the system's description.
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

// A site goes over from the older installer with the files that it has.
func TestExistingFiles(t *testing.T) {
	f := New(t, 2)
	older, newer := f.Releases()
	f.Distribution(f.Nodes...)
	f.World.Apply(lab.Object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": "nnf-fencing-agent", "namespace": "nnf-system"}})
	f.World.Apply(lab.Object{
		"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
		"metadata": map[string]any{"name": "nnf-fencing-agent", "namespace": "nnf-system", "annotations": map[string]any{"kubernetes.io/service-account.name": "nnf-fencing-agent"}},
	})
	// One node has had the older installer's hands on it, and our programs run there.
	for _, o := range olders(f, older.Programs) {
		o.install(f, f.Nodes[0])
	}
	files := []string{"--daemons", f.write("daemons.yaml", 0o600, daemonsFile), "--system-config", f.write("system.yaml", 0o600, systemFile)}
	install := append(newer.PackageArguments(), files...)
	expect(t, f.Ask("install", install...), 0, all(f.Nodes, "ok"))
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
			t.Errorf("%s: the older installer's drop-in still counts: %s", n.Name, drops)
		}
		n.serves("files")
	}
	before := processes(f.Nodes)
	expect(t, f.Ask("install", install...), 0, all(f.Nodes, "unchanged"))
	for name, now := range processes(f.Nodes) {
		if now != before[name] {
			t.Errorf("%s: %q before, %q now", name, before[name], now)
		}
	}
	expect(t, f.Ask("uninstall", files...), 0, all(f.Nodes, "ok"))
	for _, n := range f.Nodes {
		if left := n.Do("ls -d /etc/*/service.* 2>/dev/null || :"); left != "" {
			t.Errorf("%s: left behind: %s", n.Name, left)
		}
	}
}
