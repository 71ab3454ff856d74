package deploycreds

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

func otherCA(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, of, of, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// less returns the rules without some verbs on a resource.
func less(t *testing.T, all []any, resource string, verbs ...string) []any {
	t.Helper()
	data, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	var list []struct {
		Groups    []string `json:"apiGroups"`
		Resources []string `json:"resources"`
		Verbs     []string `json:"verbs"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	var out []any
	taken := 0
	for _, r := range list {
		if slices.Contains(r.Resources, resource) {
			before := len(r.Verbs)
			r.Verbs = slices.DeleteFunc(r.Verbs, func(v string) bool { return slices.Contains(verbs, v) })
			taken += before - len(r.Verbs)
		}
		if len(r.Verbs) > 0 {
			out = append(out, map[string]any{"apiGroups": r.Groups, "resources": r.Resources, "verbs": r.Verbs})
		}
	}
	if taken != len(verbs) {
		t.Fatalf("the manifest does not grant %q on %s", verbs, resource)
	}
	return out
}

// The error for missing rights names the rights and the manifest that grants them.
func TestMissingRights(t *testing.T) {
	s := newSite(t)
	for i, tt := range []struct {
		program, resource string
		verbs             []string
		fails             bool
		words             []string
	}{
		{"clientmountd", "clientmounts", []string{"patch", "watch"}, true, []string{
			"lacks these permissions in all namespaces: patch clientmounts.dataworkflowservices.github.io, watch clientmounts.dataworkflowservices.github.io; apply the manifest clientmountd-rbac.yaml"}},
		{"clientmountd", "clientmounts/status", []string{"patch"}, true, []string{"patch clientmounts.dataworkflowservices.github.io/status;"}},
		{"clientmountd", "nnfstorageprofiles", []string{"list"}, false, []string{"note: ", "lacks permissions that this clientmountd does not need but older versions do: list nnfstorageprofiles"}},
		{"nnf-dm", "nnfdatamovements", []string{"create"}, true, []string{"create nnfdatamovements.nnf.cray.hpe.com; apply the manifest nnf-dm-rbac.yaml"}},
		{"nnf-dm", "nnfdatamovements/status", []string{"get", "patch", "update"}, false, []string{"update nnfdatamovements.nnf.cray.hpe.com/status"}},
	} {
		account := "d" + string(rune('0'+i))
		s.account(account)
		s.secret(account, account)
		s.grant(account, less(t, rules(t, tt.program), tt.resource, tt.verbs...))
		a := s.run("--daemon", tt.program, "--service-account", account, "--namespace", s.namespace)
		if !tt.fails {
			s.works(a, tt.words...)
			if err := os.RemoveAll(s.out); err != nil {
				t.Fatal(err)
			}
			continue
		}
		s.fails(a, append(tt.words, "system:serviceaccount:"+s.namespace+":"+account)...)
	}
	// Without any role, all used rights are named.
	s.account("bare")
	s.secret("bare", "bare")
	s.fails(s.one("bare"), "get clientmounts.", "list clientmounts.", "get nnfstorageprofiles.")
}

// nnf-deploy waits for a role that was applied a moment ago and that the API server has not noticed
// yet.
func TestLateRights(t *testing.T) {
	s := newSite(t)
	s.account("d")
	s.secret("d", "d")
	answers := make(chan answer, 1)
	go func() { answers <- s.one("d") }()
	select {
	case a := <-answers:
		t.Fatalf("without the role: exit code %d\n%s", a.code, a.stderr)
	case <-time.After(500 * time.Millisecond): // usually long enough for a wrong return
	}
	s.grant("d", rules(t, "clientmountd"))
	s.works(<-answers)
}

// A bound token is valid for the requested time, and is not in a Secret.
func TestBound(t *testing.T) {
	s := newSite(t)
	s.account("d")
	s.grant("d", rules(t, "clientmountd"))
	a := s.one("d", "--bound", "--lifetime", "2h", "-o", "json")
	s.works(a)
	var d struct {
		Credentials []struct {
			Bound   bool
			Node    string
			Expires time.Time
			Source  string
			Notes   []string
		}
	}
	if err := json.Unmarshal([]byte(a.stdout), &d); err != nil || len(d.Credentials) != 1 {
		t.Fatalf("%v %s", err, a.stdout)
	}
	c := d.Credentials[0]
	if left := time.Until(c.Expires); !c.Bound || c.Node != "" || left < time.Hour || left > 2*time.Hour+time.Minute || len(c.Notes) > 0 || !strings.HasPrefix(c.Source, "TokenRequest") {
		t.Errorf("%+v, %v left", c, left)
	}
	// A daemon can use the files.
	if status := s.asDaemon(lab.Path("ClientMount", s.Node, "")); status != 200 {
		t.Errorf("with the token: %d", status)
	}
	first := s.read(s.out + "/service.token")
	s.works(s.one("d", "--bound"), "expires at", "changed    "+s.out+"/service.token", "unchanged  "+s.out+"/service.cert")
	if s.read(s.out+"/service.token") == first {
		t.Error("the token is the same")
	}
	// Compute nodes are usually not nodes of the cluster.
	s.works(s.one("d", "--bound", "--node", "compute-01"), `note: the cluster has no Node "compute-01"`, "works on every node")
	s.out += "/none"
	s.fails(s.one("missing", "--bound"), "there is no ServiceAccount "+s.namespace+"/missing")
}
