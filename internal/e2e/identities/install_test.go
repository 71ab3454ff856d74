package identities

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote/fakenode"
	"github.com/compute-daemons/compute-daemons/internal/e2e/executable"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

// installer runs nnf-deploy for the nodes of a system, which are fake nodes: the real scripts install
// the files below the directory of a node. The shared accounts are those of the test.
type installer struct {
	*system
	fleet      *fakenode.Fleet
	nodes      map[string]*fakenode.Node
	shared     string // namespace of the shared accounts
	kubeconfig string
	arguments  []string
}

func newInstaller(t *testing.T) *installer {
	t.Helper()
	s := &installer{system: newSystem(t), fleet: fakenode.New(t), nodes: map[string]*fakenode.Node{}}
	s.kubeconfig, s.shared = s.Cluster.Dir+"/admin.kubeconfig", s.Node+"-shared"
	s.Namespace(s.shared)
	daemons := "daemons:\n"
	for _, d := range product.Daemons {
		a := s.account(d)
		s.Apply(lab.Object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": a.Name, "namespace": a.Namespace}},
			lab.Object{"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token", "metadata": map[string]any{
				"name": a.Name, "namespace": a.Namespace, "annotations": map[string]any{"kubernetes.io/service-account.name": a.Name}}})
		s.grantShared(d)
		daemons += fmt.Sprintf("- name: %s\n  bin: %s\n  serviceAccount: {name: %s, namespace: %s}\n", d.Name, d.Name, a.Name, a.Namespace)
	}
	configuration, err := json.Marshal(fixture.SystemConfiguration("default", []any{fixture.StorageNode(s.Rabbit, s.Node, s.near), fixture.StorageNode(s.other, s.far)},
		map[string]any{"name": s.distant}, map[string]any{"name": s.Node + "-new"}))
	s.Must(err)
	s.arguments = []string{"--no-programs", "--daemons", s.Write("daemons.yaml", []byte(daemons)), "--system-config", s.Write("system.yaml", configuration), "--ssh", s.fleet.SSH()}
	for _, name := range []string{s.Node, s.near, s.far, s.distant, s.Node + "-new"} {
		s.nodes[name] = s.fleet.Node(name)
		for _, d := range product.Daemons {
			s.daemon(s.nodes[name], d)
		}
	}
	return s
}

// account returns the account of a daemon that all nodes share. It must not have the name of the
// accounts of single nodes, which the policies restrict.
func (s *installer) account(d product.Daemon) product.Account {
	return product.Account{Name: "shared-" + d.Name, Namespace: s.shared}
}

// grantShared grants the shared account of a daemon its permissions.
func (s *installer) grantShared(d product.Daemon) {
	s.t.Helper()
	var rules []any
	for _, r := range d.Rules {
		for verb := range strings.FieldsSeq(r.Used) {
			rules = append(rules, fixture.Rule(r.Group, r.Resource, verb))
		}
	}
	s.Grant(s.shared+"-"+d.Name, s.shared, s.account(d).Name, rules)
}

// daemon installs a fake daemon and its unit on a node. It is not ready if its token is in the file
// run/fake/broken.
func (s *installer) daemon(n *fakenode.Node, d product.Daemon) {
	s.t.Helper()
	status, err := json.Marshal(systemd.Status{Version: systemd.StatusVersion, ProgramVersion: "1", API: systemd.APIAnswers, Mounts: new(systemd.MountStatus),
		Renewal: &systemd.RenewalStatus{Enabled: true, Directory: d.RenewalDirectory()}})
	s.Must(err)
	n.Put("run/fake/answer."+d.Name, string(status), 0o600)
	s.Must(executable.Write(filepath.Join(n.Root, product.Path(d.Name)), []byte("#!/bin/sh\ncase $1 in\nready) [ ! -e \"$R/run/fake/broken\" ] || ! grep -qF -f \"$R/run/fake/broken\" \"$R/etc/"+d.Name+"/service.token\" ;;\nstatus) cat \"$R/run/fake/answer."+d.Name+"\" ;;\nesac\n")))
	for _, unit := range d.Units() {
		n.Put(systemd.UnitDirectory+"/"+unit, systemd.WrittenBy(d.Name)+"\nExecStart="+product.Path(d.Name)+"\n", 0o644)
	}
}

// result is the result of a run of nnf-deploy.
type result struct {
	code   int
	stdout string
	stderr string
}

// run runs nnf-deploy in this process.
func (s *installer) run(args ...string) result {
	s.t.Helper()
	var stdout, stderr strings.Builder
	p := cli.Process{Environ: []string{"KUBECONFIG=" + s.kubeconfig}, Stdout: &stdout, Stderr: &stderr}
	code := deploy.Program.Run(s.Context(patience), p, args)
	return result{code, stdout.String(), stderr.String()}
}

// install runs nnf-deploy install for a node, and checks the exit code and that the output has all
// these texts. It returns the tokens of the daemons on the node.
func (s *installer) install(node, identity string, code int, want []string, more ...string) (tokens [2]string) {
	s.t.Helper()
	args := append(append([]string{"install", node}, s.arguments...), more...)
	if identity != "" {
		args = append(args, "--identity", identity)
	}
	r := s.run(args...)
	for _, w := range want {
		if !strings.Contains(r.stdout+r.stderr, w) {
			s.t.Errorf("%s: no %q in\n%s%s", args, w, r.stdout, r.stderr)
		}
	}
	if r.code != code {
		s.t.Fatalf("%s: exit code %d\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	for i, d := range product.Daemons {
		path, _ := product.Credentials(d.Name)
		if tokens[i] = s.nodes[node].Get(path); tokens[i] != "" && strings.Contains(r.stdout+r.stderr, tokens[i]) {
			s.t.Error("the output has the token")
		}
	}
	return tokens
}

// belong checks the accounts of the tokens of both daemons.
func (s *installer) belong(tokens [2]string, account func(product.Daemon) product.Account) {
	s.t.Helper()
	for i, d := range product.Daemons {
		if c, err := kube.ClaimsOf(tokens[i]); err != nil || c.Subject != account(d).User() {
			s.t.Errorf("the token of %s belongs to %q: %v", d.Name, c.Subject, err)
		}
	}
}

func (s *installer) delete(kind, namespace, name string) {
	s.t.Helper()
	s.Must(s.Cluster.Delete(s.Context(patience), kind, namespace, name))
}

// A running clientmountd moves from the shared account to that of its node and back. It mounts and
// unmounts all the time, and the API server refuses none of its requests. It works with each
// account alone.
func TestMigration(t *testing.T) {
	s := newInstaller(t)
	clientmountd := product.Daemons[0]
	token, _ := product.Credentials(clientmountd.Name)
	shared, own := s.account, func(d product.Daemon) product.Account { return d.NodeAccount(s.Node) }
	first := s.install(s.Node, "", 0, []string{"ok"})
	s.belong(first, shared)

	s.UseProxy()
	s.Volume(0, lab.VolumeOptions{})
	s.Token = s.nodes[s.Node].Root + token
	daemon := s.Start()
	cycles := 0
	cycle := func() {
		cycles++
		name := fmt.Sprintf("m%d", cycles)
		s.MountAndWait(name, fixture.MountSpec{Path: s.Path("m"), Type: "xfs"})
		s.Unmount(name)
		s.Remove(name)
	}
	// during mounts and unmounts while f runs.
	during := func(f func()) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			f()
		}()
		for ended := false; !ended; {
			cycle()
			select {
			case <-done:
				ended = true
			default:
			}
		}
	}
	during(func() { s.belong(s.install(s.Node, "per-node", 0, []string{"ok"}), own) })
	// The account of the node suffices.
	s.delete("ClusterRoleBinding", "", s.shared+"-"+clientmountd.Name)
	s.awaitPermission(s.account(clientmountd), false)
	cycle()
	s.Stop(daemon)
	daemon = s.Start()
	cycle()
	// Without --identity, an installation does not move back.
	s.grantShared(clientmountd)
	s.awaitPermission(s.account(clientmountd), true)
	s.belong(s.install(s.Node, "", 1, []string{"has an account of its own on this node", "add --identity per-node to keep the account, or --identity shared to move back"}), own)
	// If the daemon does not start, the node keeps its token.
	s.nodes[s.Node].Put("run/fake/broken", first[0], 0o600)
	s.belong(s.install(s.Node, "shared", 1, []string{"the previous state was restored"}, "--ready-timeout", "1s"), own)
	s.Must(os.Remove(s.nodes[s.Node].Root + "/run/fake/broken"))
	during(func() { s.belong(s.install(s.Node, "shared", 0, []string{"ok"}), shared) })
	for _, d := range product.Daemons {
		s.delete("ServiceAccount", s.Node, d.Name)
	}
	cycle()
	s.Stop(daemon)
	s.neverRefused()
	if text := logOf(daemon); !strings.Contains(text, "the token file has changed; using the new token") {
		t.Errorf("the log has\n%s", text)
	}
}

// awaitPermission waits until the API server permits, or refuses, the requests of a clientmountd.
func (s *installer) awaitPermission(a product.Account, want bool) {
	s.t.Helper()
	o, err := request(tokenOf(a), s.t, s.Cluster.Client)
	s.Must(err)
	client := s.Client([]byte(o.String("status", "token")))
	wait.Within(s.t, patience, "the role", func() bool {
		_, err := request(get(lab.Path("ClientMount", s.Node, "")), s.t, client)
		return (err == nil) == want
	})
}

// A node keeps its token while that is valid for its account, and gets a new one otherwise. A token
// is verified before the node gets it.
func TestInstall(t *testing.T) {
	s := newInstaller(t)
	const perNode = "per-node"
	account := func(d product.Daemon) product.Account { return d.NodeAccount(s.near) }
	first := s.install(s.near, perNode, 0, []string{"ok"})
	s.belong(first, account)
	for i, d := range product.Daemons {
		c, err := kube.ClaimsOf(first[i])
		if life := c.Life(); err != nil || life < 160*time.Hour || life > 169*time.Hour {
			t.Errorf("the token of %s is valid for %v: %v", d.Name, life, err)
		}
	}
	movements := lab.Path("NnfDataMovement", s.Rabbit, "")
	if _, err := request(get(movements), t, s.Client([]byte(first[1]))); err != nil {
		t.Errorf("the installed token: %v", err)
	}
	if _, err := request(get(lab.Path("NnfDataMovement", s.other, "")), t, s.Client([]byte(first[1]))); err == nil {
		t.Error("the installed token is valid for another rabbit")
	}
	if again := s.install(s.near, perNode, 0, []string{"unchanged"}); again != first {
		t.Error("a second run has replaced the tokens")
	}
	if again := s.install(s.near, perNode, 0, []string{"service.token (forced)"}, "--force", "--dry-run"); again != first {
		t.Error("a dry run has replaced the tokens")
	}
	second := s.install(s.near, perNode, 0, []string{"ok"}, "--force", "--lifetime", "1h")
	if second[0] == first[0] || second[1] == first[1] {
		t.Error("--force has not replaced the tokens")
	}
	var status struct {
		Nodes []struct {
			Well    bool
			Daemons []struct {
				Identity, Account string
				Expires           time.Time `json:"token_expires"`
			}
		}
	}
	r := s.run(append(append([]string{"status", s.near, "-o", "json"}, s.arguments[1:]...), "--connect-timeout", "20s")...)
	s.Must(json.Unmarshal([]byte(r.stdout), &status))
	for i, d := range status.Nodes[0].Daemons {
		if left := time.Until(d.Expires); r.code != 0 || d.Identity != perNode || d.Account != account(product.Daemons[i]).User() || left < 30*time.Minute || left > 70*time.Minute {
			t.Errorf("status: %d %+v %s", r.code, d, r.stderr)
		}
	}

	// An account that was created again needs a new token.
	s.delete("ServiceAccount", s.near, "nnf-dm")
	s.install(s.near, perNode, 1, []string{"nnf-dm: there is no ServiceAccount " + s.near + "/nnf-dm", "run nnf-deploy identities apply " + s.near})
	s.install(s.near, perNode, 1, []string{"there is no ServiceAccount"}, "--dry-run")
	s.Apply(lab.Object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": "nnf-dm", "namespace": s.near}})
	third := s.install(s.near, perNode, 0, []string{"the account was created again"})
	if third[0] != second[0] || third[1] == second[1] {
		t.Error("the wrong tokens were replaced")
	}

	// A daemon that is too old to renew its token gets none.
	answer := s.nodes[s.far].Get("run/fake/answer.nnf-dm")
	s.nodes[s.far].Put("run/fake/answer.nnf-dm", `{"version": 1, "program_version": "0.9", "paths": {}}`, 0o600)
	s.install(s.far, perNode, 1, []string{"nnf-dm 0.9 on the node cannot renew a token of its own", "--rpm or --binary-dir instead of --no-programs"})
	s.install(s.far, perNode, 1, []string{"nnf-dm 0.9 on the node cannot renew a token of its own"}, "--dry-run")
	s.nodes[s.far].Put("run/fake/answer.nnf-dm", answer, 0o600)

	// Missing accounts, roles, and a binding that grants too much: nothing is written.
	s.install(s.Node+"-new", perNode, 1, []string{"there is no ServiceAccount " + s.Node + "-new/clientmountd"})
	s.delete("RoleBinding", s.far, "compute-daemons-clientmountd")
	s.install(s.far, perNode, 1, []string{"lacks these permissions: ", "patch clientmounts." + api.GroupDWS + " in " + s.far, "run nnf-deploy identities apply " + s.far})
	s.Grant(s.distant, s.distant, "nnf-dm", []any{fixture.Rule(api.GroupNNF, "nnfdatamovements", "delete")})
	s.install(s.distant, perNode, 1, []string{"would be valid for other nodes, too", "in all namespaces: delete nnfdatamovements." + api.GroupNNF, "remove that binding"})
	for _, name := range []string{s.Node + "-new", s.far, s.distant} {
		if files := s.nodes[name].Files("etc/clientmountd", "etc/nnf-dm", "var/lib/nnf-deploy"); len(files) > 0 {
			t.Errorf("%s has %v", name, files)
		}
	}
}

// nnf-deploy credentials writes the verified tokens of one node, which install can use as well.
func TestNodeCredentials(t *testing.T) {
	s := newInstaller(t)
	s.Apply(fixture.SystemConfiguration("default", []any{fixture.StorageNode(s.Rabbit, s.Node, s.near)}, map[string]any{"name": s.distant}))
	out := t.TempDir() + "/out"
	r := s.run("credentials", "--identity", "per-node", "--node", s.near, "--lifetime", "1h", "--out", out)
	if r.code != 0 || !strings.Contains(r.stdout, "clientmountd: the token of "+s.near+"/clientmountd expires at ") {
		t.Fatalf("%+v", r)
	}
	for _, d := range product.Daemons {
		data, err := os.ReadFile(filepath.Join(out, d.Name, product.TokenFile))
		s.Must(err)
		if c, err := kube.ClaimsOf(string(data)); err != nil || c.Subject != d.NodeAccount(s.near).User() {
			t.Errorf("%+v %v", c, err)
		}
	}
	s.install(s.near, "", 0, []string{"ok"}, "--credentials", out)
	s.install(s.near, "", 0, []string{"unchanged"}, "--credentials", out)
	r = s.run("credentials", "--identity", "per-node", "--node", "elsewhere", "--out", out)
	if r.code != 1 || !strings.Contains(r.stderr, "--node: not a compute node of this system") {
		t.Errorf("%+v", r)
	}
}

// The claims of a node are not trusted: whatever it reports, it only keeps its own token.
func TestForgedClaims(t *testing.T) {
	s := newInstaller(t)
	account := product.Daemons[0].NodeAccount(s.near)
	o, err := request(call{method: http.MethodGet, path: lab.Path("ServiceAccount", account.Namespace, account.Name)}, t, s.Cluster.Client)
	s.Must(err)
	claims := fmt.Sprintf(`{"sub":%q,"iat":%d,"exp":%d,"kubernetes.io":{"serviceaccount":{"uid":%q}}}`,
		account.User(), time.Now().Unix(), time.Now().Add(168*time.Hour).Unix(), o.String("metadata", "uid"))
	path, _ := product.Credentials("clientmountd")
	forged := "x." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".x"
	s.nodes[s.near].Put(path, forged, 0o600)
	tokens := s.install(s.near, "per-node", 0, []string{"ok"})
	if tokens[0] != forged || tokens[1] == "" {
		t.Error("a claimed token was replaced, or a missing one was not")
	}
}
