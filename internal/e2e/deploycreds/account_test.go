// Package deploycreds tests that nnf-deploy fetches credentials from a real cluster, that it
// verifies them before it writes them, and that its errors give the reason.
//
// It must not depend on how credentials get to a node.
package deploycreds

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

func TestMain(m *testing.M) { os.Exit(fixture.Main(m)) }

const (
	manifests = "../../../packaging/manifests"
	patience  = 30 * time.Second
)

// site is a namespace with the objects of a test, and runs nnf-deploy credentials.
type site struct {
	*fixture.Fixture
	t          *testing.T
	namespace  string
	out        string
	kubeconfig string
}

var sites atomic.Int64

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{Fixture: fixture.New(t), t: t, namespace: fmt.Sprintf("site-%d", sites.Add(1)), out: t.TempDir() + "/out"}
	s.kubeconfig = s.Cluster.Dir + "/admin.kubeconfig"
	s.Apply(lab.Object{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": s.namespace}})
	return s
}

func (s *site) object(kind, name string, more lab.Object) {
	s.t.Helper()
	o := lab.Object{"apiVersion": "v1", "kind": kind, "metadata": map[string]any{"name": name, "namespace": s.namespace}}
	for k, v := range more {
		if k == "annotations" {
			o["metadata"].(map[string]any)[k] = v
			continue
		}
		o[k] = v
	}
	s.Apply(o)
}

func (s *site) account(name string) { s.t.Helper(); s.object("ServiceAccount", name, nil) }

// secret creates a Secret that the control plane fills.
func (s *site) secret(name, account string) {
	s.t.Helper()
	s.object("Secret", name, lab.Object{"type": "kubernetes.io/service-account-token",
		"annotations": map[string]any{"kubernetes.io/service-account.name": account}})
}

// opaque creates a Secret that is filled manually.
func (s *site) opaque(name, token string, ca []byte) {
	s.t.Helper()
	s.object("Secret", name, lab.Object{"type": "Opaque", "stringData": map[string]any{"token": token, "ca.crt": string(ca)}})
}

// rules returns the rules in the manifest of a program.
func rules(t *testing.T, program string) []any {
	t.Helper()
	text, err := os.ReadFile(manifests + "/" + program + "-rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
		var o lab.Object
		if err := yaml.Unmarshal(document, &o); err != nil {
			t.Fatal(err)
		}
		if o.String("kind") == "ClusterRole" {
			return o["rules"].([]any)
		}
	}
	t.Fatal("no ClusterRole in the manifest of ", program)
	return nil
}

// grant grants these rules to an account of the site.
func (s *site) grant(account string, rules []any) {
	s.t.Helper()
	s.Grant(s.namespace+"-"+account, s.namespace, account, rules)
}

// token creates a token for an account of the site.
func (s *site) token(account string) string {
	s.t.Helper()
	body, err := json.Marshal(lab.Object{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": map[string]any{"expirationSeconds": 3600}})
	s.Must(err)
	o, err := s.Cluster.Do(s.Context(patience), http.MethodPost, lab.Path("ServiceAccount", s.namespace, account)+"/token", "application/json", body)
	s.Must(err)
	return o.String("status", "token")
}

// answer is the result of a run of nnf-deploy.
type answer struct {
	code           int
	stdout, stderr string
}

// run runs nnf-deploy credentials with the directory of the site.
func (s *site) run(args ...string) answer {
	s.t.Helper()
	var stdout, stderr strings.Builder
	p := cli.Process{Environ: []string{"KUBECONFIG=" + s.kubeconfig}, Stdout: &stdout, Stderr: &stderr}
	code := deploy.Program.Run(s.Context(2*patience), p, append([]string{"credentials", "--out", s.out}, args...))
	return answer{code, stdout.String(), stderr.String()}
}

// one is run for clientmountd, with an account of the site.
func (s *site) one(account string, args ...string) answer {
	s.t.Helper()
	return s.run(append([]string{"--daemon", "clientmountd", "--service-account", account, "--namespace", s.namespace}, args...)...)
}

// fails checks that a run has failed with all these words, and has not written anything.
func (s *site) fails(a answer, words ...string) {
	s.t.Helper()
	if a.code != 1 || a.stdout != "" || strings.Count(a.stderr, "nnf-deploy: ") != strings.Count(a.stderr, "\n") {
		s.t.Errorf("exit code %d\n%s%s", a.code, a.stdout, a.stderr)
	}
	for _, w := range words {
		if !strings.Contains(a.stderr, w) {
			s.t.Errorf("no %q in %s", w, a.stderr)
		}
	}
	if _, err := os.Lstat(s.out); !os.IsNotExist(err) {
		s.t.Errorf("a failed run has written files: %v", err)
	}
}

// works checks that a run has succeeded with all these words.
func (s *site) works(a answer, words ...string) {
	s.t.Helper()
	if a.code != 0 {
		s.t.Fatalf("exit code %d\n%s%s", a.code, a.stdout, a.stderr)
	}
	for _, w := range words {
		if !strings.Contains(a.stdout+a.stderr, w) {
			s.t.Errorf("no %q in %s%s", w, a.stdout, a.stderr)
		}
	}
}

// read returns the contents of a file, which must have mode 0600.
func (s *site) read(path string) string {
	s.t.Helper()
	info, err := os.Lstat(path)
	s.Must(err)
	if info.Mode() != 0o600 {
		s.t.Errorf("%s has mode %v", path, info.Mode())
	}
	data, err := os.ReadFile(path)
	s.Must(err)
	return string(data)
}
