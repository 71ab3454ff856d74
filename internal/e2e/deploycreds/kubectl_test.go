package deploycreds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/util/jsonpath"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// script is the one in the documentation.
func script(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/nnf-deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok1 := strings.Cut(string(text), "<!-- credentials.sh: a test runs it against an API server -->\n```sh\n")
	body, _, ok2 := strings.Cut(rest, "\n```\n")
	if !ok1 || !ok2 {
		t.Fatal("there is no script in docs/nnf-deploy.md")
	}
	path := filepath.Join(t.TempDir(), "credentials.sh")
	if err := os.WriteFile(path, []byte(body+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// withStandIn is a PATH on which kubectl is what stands in for it.
func withStandIn(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(exe, dir+"/kubectl"); err != nil {
		t.Fatal(err)
	}
	return dir + ":" + os.Getenv("PATH")
}

// shell runs the script in a directory.
func (s *site) shell(path, script, dir string, args ...string) (string, error) {
	s.t.Helper()
	cmd := exec.CommandContext(s.Context(patience), "sh", append([]string{script}, args...)...)
	cmd.Dir = dir
	// kubectl keeps what it has learned of a server in HOME.
	cmd.Env = []string{"PATH=" + path, "HOME=" + dir, "KUBECONFIG=" + s.kubeconfig}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// The script makes the same files as the program.
func TestKubectl(t *testing.T) {
	t.Run("stand-in", func(t *testing.T) { sameFiles(t, withStandIn(t), "clientmountd", "nnf-dm") })
	// No distribution has to have one that knows whoami (1.28), and it takes seconds.
	t.Run("kubectl", func(t *testing.T) {
		if out, err := exec.Command("kubectl", "auth", "whoami", "--help").CombinedOutput(); err != nil {
			t.Skipf("no kubectl of 1.28 or newer here, only the stand-in was used: %v %.80s", err, out)
		}
		sameFiles(t, os.Getenv("PATH"), "clientmountd")
	})
}

func sameFiles(t *testing.T, path string, daemons ...string) {
	s := newSite(t)
	script, dir := script(t), t.TempDir()
	s.works(s.run())
	for _, daemon := range daemons {
		if out, err := s.shell(path, script, dir, daemon); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, file := range []string{"service.token", "service.cert"} {
			if got := s.read(dir + "/credentials/" + daemon + "/" + file); got != s.read(s.out+"/"+daemon+"/"+file) {
				t.Errorf("%s of %s: %q", file, daemon, got)
			}
		}
	}
	list, err := os.ReadDir(dir + "/credentials/clientmountd")
	if err != nil || len(list) != 2 {
		t.Errorf("left behind: %v %v", list, err)
	}
	s.out = dir + "/credentials/clientmountd"
	before := s.read(s.out + "/service.token")
	if out, err := s.shell(path, script, dir, "clientmountd", "bound"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if status := s.asDaemon(lab.Path("ClientMount", s.Node, "")); status != 200 || s.read(s.out+"/service.token") == before {
		t.Errorf("with the new token: %d", status)
	}
}

// It tries what it has fetched as well, and keeps what was there.
func TestKubectlRefuses(t *testing.T) {
	path := withStandIn(t)
	s := newSite(t)
	text, err := os.ReadFile(script(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, words := range map[string]string{
		"less": "system:serviceaccount:" + s.namespace + ":less may not watch clientmounts", "wrong": "the token is that of system:serviceaccount:" + s.namespace + ":less",
	} {
		s.account(name)
		if name == "less" {
			s.secret(name, name)
			s.grant(name, less(t, rules(t, "clientmountd"), "clientmounts", "watch"))
		} else {
			s.account("less")
			s.opaque(name, s.token("less"), s.Cluster.CA())
		}
		script, dir := filepath.Join(t.TempDir(), "script"), t.TempDir()
		changed := strings.Replace(string(text), "ns=nnf-system account=nnf-clientmount", "ns="+s.namespace+" account="+name, 1)
		if err := os.WriteFile(script, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := s.shell(path, script, dir, "clientmountd")
		if list, _ := os.ReadDir(dir + "/credentials/clientmountd"); err == nil || !strings.Contains(out, words) || len(list) != 0 {
			t.Errorf("%s: %v %v\n%s", name, err, list, out)
		}
	}
}

func TestScriptLint(t *testing.T) {
	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Skip("shellcheck is not installed, make lint installs it: ", err)
	}
	if out, err := exec.Command("shellcheck", "--shell=sh", script(t)).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// standIn is this program when it is called kubectl: what the documentation's
// script uses of it, for machines that have none. The jsonpath is kubectl's own.
func standIn() bool {
	if filepath.Base(os.Args[0]) != "kubectl" {
		return false
	}
	code, err := kubectl(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubectl stand-in:", err)
		code = 1
	}
	os.Exit(code)
	return true
}

func kubectl(args []string, out io.Writer) (code int, err error) {
	f := pflag.NewFlagSet("kubectl", pflag.ContinueOnError)
	config, ns, output, sub := f.String("kubeconfig", "", ""), f.StringP("namespace", "n", "", ""), f.StringP("output", "o", "", ""), f.String("subresource", "", "")
	duration := f.Duration("duration", time.Hour, "")
	for _, flag := range []string{"all-namespaces", "quiet", "minify"} {
		f.Bool(flag, false, "")
	}
	if err := f.Parse(args); err != nil {
		return 2, err
	}
	c, err := kube.Dial(kube.Options{Kubeconfig: *config})
	if err != nil {
		return 1, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var o map[string]any
	words := f.Args()
	switch command := strings.Join(words[:min(2, len(words))], " "); {
	case command == "get secret" && len(words) == 3, command == "get configmap" && len(words) == 3:
		err = c.Get(ctx, kube.Resource{Version: "v1", Plural: words[1] + "s", Kind: words[1]}, *ns, words[2], &o)
	case command == "config view":
		o = map[string]any{"clusters": []any{map[string]any{"cluster": map[string]any{"server": c.Address()}}}}
	case command == "create token" && len(words) == 3:
		ask := map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": map[string]any{"expirationSeconds": int(duration.Seconds())}}
		err = c.CreateFor(ctx, kube.Resource{Version: "v1", Plural: "serviceaccounts", Kind: "ServiceAccount"}, *ns, words[2], "token", ask, &o)
		*output = "jsonpath={.status.token}"
	case command == "auth whoami":
		r := kube.Resource{Group: "authentication.k8s.io", Version: "v1", Plural: "selfsubjectreviews", Kind: "SelfSubjectReview"}
		err = c.Create(ctx, r, "", map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": r.Kind}, &o)
	case command == "auth can-i" && len(words) == 4:
		resource, group, _ := strings.Cut(words[3], ".")
		r := kube.Resource{Group: "authorization.k8s.io", Version: "v1", Plural: "selfsubjectaccessreviews", Kind: "SelfSubjectAccessReview"}
		err = c.Create(ctx, r, "", map[string]any{"apiVersion": "authorization.k8s.io/v1", "kind": r.Kind, "spec": map[string]any{"resourceAttributes": map[string]any{
			"verb": words[2], "group": group, "resource": resource, "subresource": *sub}}}, &o)
		if status, _ := o["status"].(map[string]any); err == nil && status["allowed"] != true {
			return 1, nil
		}
		*output = "jsonpath="
	default:
		err = fmt.Errorf("it does not know %q", args)
	}
	if err != nil {
		return 1, err
	}
	path, ok := strings.CutPrefix(*output, "jsonpath=")
	if !ok {
		return 1, errors.New("it needs -o jsonpath")
	}
	j := jsonpath.New("output")
	if err := j.Parse(path); err != nil {
		return 1, err
	}
	data, err := json.Marshal(o)
	if err == nil {
		var plain any
		if err = json.Unmarshal(data, &plain); err == nil {
			err = j.Execute(out, plain)
		}
	}
	return 0, err
}
