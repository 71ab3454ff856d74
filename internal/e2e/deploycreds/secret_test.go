package deploycreds

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// Both daemons of a standard installation, with the usual names.
func TestSecrets(t *testing.T) {
	s := newSite(t)
	s.works(s.run(), "clientmountd: the token of nnf-system/nnf-clientmount does not expire; 12 permissions checked at "+s.Cluster.URL,
		"nnf-dm: the token of nnf-dm-system/nnf-dm-daemon does not expire; 26 permissions checked", "new        "+s.out+"/nnf-dm/service.cert",
		"on a compute node, ")
	for _, daemon := range []string{"clientmountd", "nnf-dm"} {
		for _, file := range []string{"service.token", "service.cert"} {
			want, err := os.ReadFile(s.Cluster.Dir + "/" + daemon + "/" + file)
			if got := s.read(s.out + "/" + daemon + "/" + file); err != nil || strings.TrimSpace(got) != strings.TrimSpace(string(want)) {
				t.Errorf("%s of %s: %q, want %q (%v)", file, daemon, got, want, err)
			}
		}
		if info, err := os.Stat(s.out + "/" + daemon); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%v %v", info.Mode(), err)
		}
	}
	// A second run changes nothing, and reports this as JSON.
	before, err := os.Stat(s.out + "/nnf-dm/service.token")
	if err != nil {
		t.Fatal(err)
	}
	a := s.run("-o", "json")
	s.works(a)
	var d struct {
		Server      string
		Credentials []struct {
			Daemon  string
			Expires *time.Time
			Files   []struct{ Path, Change string }
		}
	}
	if err := json.Unmarshal([]byte(a.stdout), &d); err != nil || d.Server != s.Cluster.URL || len(d.Credentials) != 2 {
		t.Fatalf("%v %s", err, a.stdout)
	}
	for _, c := range d.Credentials {
		if c.Expires != nil || len(c.Files) != 2 || c.Files[0].Change != "unchanged" || c.Files[1].Change != "unchanged" {
			t.Errorf("%+v", c)
		}
	}
	if after, err := os.Stat(s.out + "/nnf-dm/service.token"); err != nil || !os.SameFile(before, after) || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("the file was written again: %v", err)
	}
	// A changed token is replaced. The files of a single daemon are in the directory itself.
	s.out += "/nnf-dm"
	if err := os.WriteFile(s.out+"/service.token", []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.works(s.run("--daemon", "nnf-dm"), "changed    "+s.out+"/service.token", "unchanged  "+s.out+"/service.cert")
}

// The control plane needs a moment to fill a Secret, or does not fill it.
func TestSecretFilledLate(t *testing.T) {
	s := newSite(t)
	s.account("d")
	s.secret("d", "d")
	s.grant("d", rules(t, "clientmountd"))
	path := lab.Path("Secret", s.namespace, "d")
	s.administratorAt(s.front("127.0.0.1:0", without(t, path, -1, "token", "ca.crt")).URL)
	s.fails(s.one("d", "--wait", "600ms"), "clientmountd: the Secret "+s.namespace+"/d got no token within 600ms", "kube-controller-manager")
	s.administratorAt(s.front("127.0.0.1:0", without(t, path, 3, "token")).URL)
	s.works(s.one("d"), "does not expire")
	if err := s.Cluster.Delete(s.Context(patience), "ServiceAccount", s.namespace, "d"); err != nil {
		t.Fatal(err)
	}
	// The API server may accept a token for a moment after its account was deleted.
	base := s.out
	for i := 0; ; i++ {
		s.out = fmt.Sprintf("%s/none-%d", base, i)
		if a := s.one("d"); a.code != 0 || i == 100 {
			s.fails(a, "there is no ServiceAccount "+s.namespace+"/d")
			return
		}
	}
}

// The error names what is wrong with a Secret.
func TestWrongSecrets(t *testing.T) {
	s := newSite(t)
	ca := s.Cluster.CA()
	for _, name := range []string{"d", "other", "bare"} {
		s.account(name)
		s.grant(name, rules(t, "clientmountd"))
	}
	s.secret("d", "d")
	s.secret("of-other", "other")
	s.opaque("token-of-other", s.token("other"), ca)
	s.opaque("expired", s.expired(s.token("d")), ca)
	s.opaque("expired-of-other", s.expired(s.token("other")), ca)
	forged := s.token("d")
	s.opaque("forged", forged[:len(forged)-8]+"AAAAAAAA", ca)
	s.opaque("no-token", "", ca)
	s.opaque("no-ca", s.token("d"), nil)
	s.opaque("lines", "abc\r\nX-Evil: 1", ca)
	s.opaque("other-ca", s.token("d"), otherCA(t))
	s.opaque("encoded-token", base64.StdEncoding.EncodeToString([]byte(s.token("d"))), ca)
	s.opaque("encoded-ca", s.token("d"), []byte(base64.StdEncoding.EncodeToString(ca)))
	s.opaque("garbage-ca", s.token("d"), []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	user := "system:serviceaccount:" + s.namespace + ":"
	for secret, words := range map[string][]string{
		"of-other":         {`belongs to the account "other", not to ` + s.namespace + "/d"},
		"token-of-other":   {`belongs to "` + user + `other", not to "` + user + `d": check --secret`},
		"expired":          {"refuses the token of Secret " + s.namespace + "/expired: it expired at 2024-01-02T03:04:05Z; delete the Secret"},
		"expired-of-other": {"it expired at"},
		"encoded-token":    {"token in Secret " + s.namespace + "/encoded-token looks base64-encoded: decode it (base64 -d)"},
		"encoded-ca":       {"ca.crt in Secret " + s.namespace + "/encoded-ca looks base64-encoded: decode it (base64 -d)"},
		"forged":           {"refuses the token", "another cluster issued it, or its account has been deleted"},
		"no-token":         {`does not fill a Secret of type "Opaque": delete it and apply the manifest clientmountd-rbac.yaml`},
		"no-ca":            {"has no token or no ca.crt"},
		"lines":            {"control characters"},
		"other-ca":         {"do not work", "check that the CA certificate is that of this cluster"},
		"garbage-ca":       {"ca.crt in Secret", "not a certificate"},
		"none":             {"there is no Secret " + s.namespace + "/none with a token of the account", "or use --bound"},
	} {
		t.Run(secret, func(t *testing.T) {
			c := *s
			c.t = t
			c.fails(c.one("d", "--secret", secret), words...)
		})
	}
	s.fails(s.one("missing"), "there is no ServiceAccount "+s.namespace+"/missing", "check that "+s.Cluster.URL+" is the right cluster")
	// The correct Secret works, so the other runs have failed for the intended reasons.
	s.works(s.one("d"), "does not expire")
	// The control plane marks an unused token with a label.
	s.secret("disused", "d")
	label := lab.Object{"metadata": map[string]any{"labels": map[string]any{"kubernetes.io/legacy-token-invalid-since": "2025-01-01"}}}
	if _, err := s.Cluster.Patch(s.Context(patience), "Secret", s.namespace, "disused", label); err != nil {
		t.Fatal(err)
	}
	c := *s
	c.out += "/none"
	c.fails(c.one("d", "--secret", "disused"), "refuses the token", "marked it as invalid on 2025-01-01", "remove the label")
	// A token that was put there manually expires, which is reported.
	s.opaque("by-hand", s.token("d"), ca)
	s.works(s.one("d", "--secret", "by-hand"), "note: the token in Secret "+s.namespace+"/by-hand expires at", "nothing renews it")
}

// If the second daemon fails, nothing is written for the first.
func TestAllOrNothing(t *testing.T) {
	s := newSite(t)
	path := lab.Path("Secret", "nnf-dm-system", "nnf-dm-daemon")
	s.administratorAt(s.front("127.0.0.1:0", without(t, path, -1, "token")).URL)
	s.fails(s.run("--wait", "0s"), "nnf-dm: the Secret nnf-dm-system/nnf-dm-daemon got no token")
}

// Accounts with the names of older installations are found.
func TestOlderAccounts(t *testing.T) {
	s := newSite(t)
	for program, account := range map[string][2]string{
		"clientmountd": {"dws-controller-manager", "dws-system"}, "nnf-dm": {"nnf-dm-controller-manager", "nnf-dm-system"},
	} {
		s.fails(s.run("--daemon", program, "--namespace", s.namespace), "is the right cluster")
		s.Apply(lab.Object{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": account[1]}})
		s.Apply(lab.Object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": account[0], "namespace": account[1]}})
		s.fails(s.run("--daemon", program, "--namespace", s.namespace), "but there is "+account[1]+"/"+account[0]+" from an older installation"+
			": add --service-account "+account[0]+" --namespace "+account[1])
		if err := s.Cluster.Delete(s.Context(patience), "ServiceAccount", account[1], account[0]); err != nil {
			t.Fatal(err)
		}
	}
	// Kubernetes before 1.24 generated the name of the Secret.
	s.account("d")
	s.grant("d", rules(t, "clientmountd"))
	s.secret("d-token-x7k2p", "d")
	if _, err := s.Cluster.Patch(s.Context(patience), "ServiceAccount", s.namespace, "d", lab.Object{"secrets": []any{map[string]any{"name": "d-token-x7k2p"}}}); err != nil {
		t.Fatal(err)
	}
	s.fails(s.one("d"), `the account lists "d-token-x7k2p": add --secret d-token-x7k2p`)
	s.works(s.one("d", "--secret", "d-token-x7k2p"))
}

// The error for a user who may not read Secrets names the missing permission.
func TestNoAdministrator(t *testing.T) {
	s := newSite(t)
	s.administratorAt(s.Cluster.URL)
	s.account("unprivileged")
	config, err := os.ReadFile(s.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	var o lab.Object
	if err := json.Unmarshal(config, &o); err != nil {
		t.Fatal(err)
	}
	config = bytes.ReplaceAll(config, []byte(o.At("users", 0, "user", "token").(string)), []byte(s.token("unprivileged")))
	if err := os.WriteFile(s.kubeconfig, config, 0o600); err != nil {
		t.Fatal(err)
	}
	s.fails(s.run(), "system:serviceaccount:"+s.namespace+":unprivileged may not get secrets in namespace \"nnf-system\"")
	s.fails(s.run("--bound"), "may not create serviceaccounts/token")
}

// Before Kubernetes 1.28, a client could not query its identity. Then the subject in the token is
// used, after the API server has accepted the token.
func TestOldServer(t *testing.T) {
	s := newSite(t)
	s.administratorAt(s.front("127.0.0.1:0", func(r *http.Response) error {
		if strings.HasSuffix(r.Request.URL.Path, "/selfsubjectreviews") {
			r.StatusCode = http.StatusNotFound
		}
		return nil
	}).URL)
	s.works(s.run("--daemon", "nnf-dm"), "26 permissions checked")
	s.account("other")
	s.opaque("nnf-dm-daemon", s.token("other"), s.Cluster.CA())
	s.out += "/none"
	s.fails(s.run("--daemon", "nnf-dm", "--namespace", s.namespace), "belongs to", ":other")
}
