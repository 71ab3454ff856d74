package apiserver

import (
	"encoding/base64"
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

const (
	accountNamespace = "nnf-system"
	rbacGroup        = "rbac.authorization.k8s.io"
)

type rights map[string][]any // resource to verbs

// granted is what an installation grants to clientmountd.
func granted() rights {
	return rights{
		"clientmounts":            {"get", "list", "patch", "update", "watch"},
		"clientmounts/finalizers": {"update"},
		"clientmounts/status":     {"get", "patch", "update"},
		"nnfstorageprofiles":      {"get", "list", "watch"},
	}
}

func metadata(name, ns string) map[string]any {
	m := map[string]any{"name": name}
	if ns != "" {
		m["namespace"] = ns
	}
	return m
}

// useAccount gives the test a service account of its own with the usual
// rights, so that what happens to it disturbs nobody else. All is called like
// the node. It returns the user name that the server knows it by.
func (s *env) useAccount() string {
	s.t.Helper()
	s.Apply(lab.Object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(s.Node, accountNamespace)})
	s.setRights(granted())
	s.bind()
	s.Token = s.Write("token", s.newToken(s.Node+"-1"))
	c := s.tokenClient()
	wait.Within(s.t, soon, "the server grants", func() bool { return refused(c, s.Node) == 0 })
	return "system:serviceaccount:" + accountNamespace + ":" + s.Node
}

// setRights replaces the rules of the account's role.
func (s *env) setRights(r rights) {
	s.t.Helper()
	var rules []any
	for resource, verbs := range r {
		group := api.GroupDWS
		if resource == "nnfstorageprofiles" {
			group = api.GroupNNF
		}
		rules = append(rules, map[string]any{"apiGroups": []any{group}, "resources": []any{resource}, "verbs": verbs})
	}
	s.Apply(lab.Object{"apiVersion": rbacGroup + "/v1", "kind": "ClusterRole", "metadata": metadata(s.Node, ""), "rules": rules})
}

func (s *env) bind() {
	s.t.Helper()
	s.Apply(lab.Object{
		"apiVersion": rbacGroup + "/v1", "kind": "ClusterRoleBinding", "metadata": metadata(s.Node, ""),
		"roleRef":  map[string]any{"apiGroup": rbacGroup, "kind": "ClusterRole", "name": s.Node},
		"subjects": []any{map[string]any{"kind": "ServiceAccount", "name": s.Node, "namespace": accountNamespace}},
	})
}

// newToken makes a secret that the control plane fills with a token, and
// returns when the server knows it too.
func (s *env) newToken(secret string) (token []byte) {
	s.t.Helper()
	o := lab.Object{"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token", "metadata": metadata(secret, accountNamespace)}
	o["metadata"].(map[string]any)["annotations"] = map[string]any{"kubernetes.io/service-account.name": s.Node}
	s.Apply(o)
	wait.Within(s.t, soon, "the secret "+secret+" is filled", func() bool {
		got, err := s.Cluster.Get(s.Context(soon), "Secret", accountNamespace, secret)
		if err != nil {
			s.t.Fatal(err)
		}
		token, err = base64.StdEncoding.DecodeString(got.String("data", "token"))
		if err != nil {
			s.t.Fatal(err)
		}
		return len(token) > 0
	})
	c := s.Client(token)
	wait.Within(s.t, soon, "the server lets the new token in", func() bool { return refused(c, s.Node) != http.StatusUnauthorized })
	return token
}

// revoke deletes the secret of a token and returns when the server refuses it:
// it remembers for some 10 s that it was good.
func (s *env) revoke(secret string, token []byte) {
	s.t.Helper()
	if err := s.Cluster.Delete(s.Context(soon), "Secret", accountNamespace, secret); err != nil {
		s.t.Fatal(err)
	}
	c := s.Client(token)
	wait.Within(s.t, soon, "the server refuses the old token", func() bool { return refused(c, s.Node) == http.StatusUnauthorized })
}

// tokenClient is a client with the token that the daemon has.
func (s *env) tokenClient() *lab.Client {
	s.t.Helper()
	token, err := os.ReadFile(s.Token)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.Client(token)
}

// refused is the status code by which the server refuses a list, 0 when it
// grants it.
func refused(c *lab.Client, node string) int {
	ctx, cancel := contextWithin(soon)
	defer cancel()
	_, err := c.Do(ctx, http.MethodGet, lab.Path("ClientMount", node, ""), "", nil)
	status := (*lab.StatusError)(nil)
	if errors.As(err, &status) {
		return status.Code
	}
	return 0
}

// rightTests: rights that the account loses. The message names the account,
// the verb and the resource, and all heals when the right is back.
var rightTests = map[string]func(*env){
	"rights removed":                func(s *env) { rightsRemoved(s) },
	"no right to list at start":     noRightToList,
	"no right to read profiles":     noRightToReadProfiles,
	"no right to write the status":  func(s *env) { noRightToWrite(s, "clientmounts/status", "cannot write the status") },
	"no right to set the finalizer": func(s *env) { noRightToWrite(s, "clientmounts", "cannot add the finalizer") },
}

func rightsRemoved(s *env) {
	account := s.useAccount()
	s.start()
	stays := s.mounted()
	first, err := s.Proxy.WaitRequest(s.Context(soon), isWatch)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.Cluster.Delete(s.Context(soon), "ClusterRoleBinding", "", s.Node); err != nil {
		s.t.Fatal(err)
	}
	wait.Within(s.t, soon, "the server denies", func() bool { return refused(s.tokenClient(), s.Node) == 403 })
	s.Proxy.ClearRequests()
	s.Proxy.Reset()
	s.said(soon, lostText, account, "may not watch", "clientmounts."+api.GroupDWS, s.Node)
	s.showsTrouble(account, "may not watch")
	s.hold(5 * time.Second)
	s.isMounted(stays, true)
	comes := s.ask()
	s.bind()
	s.back(1)
	s.Await(comes, "mounted")
	s.resumed(first, 0)
	s.story("", "may not watch", "back")
	s.onceMounted(stays)
}

func noRightToList(s *env) {
	account := s.useAccount()
	r := granted()
	delete(r, "clientmounts")
	s.setRights(r)
	wait.Within(s.t, soon, "the server denies", func() bool { return refused(s.tokenClient(), s.Node) == 403 })
	name := s.ask()
	s.launch()
	s.said(soon, lostText, account, "may not list", "clientmounts."+api.GroupDWS, s.Node)
	s.showsTrouble(account, "may not list")
	s.hold(4 * time.Second)
	s.notReady()
	s.setRights(granted())
	s.ready(resume)
	s.Await(name, "mounted")
	s.back(1)
	s.story("may not list", "back")
}

// Here the rabbit learns of it as well, by the status.
func noRightToReadProfiles(s *env) {
	account := s.useAccount()
	r := granted()
	delete(r, "nnfstorageprofiles")
	s.setRights(r)
	s.start()
	name := s.ask()
	o := s.AwaitError(name)
	want := []string{account, "may not get", "nnfstorageprofiles." + api.GroupNNF, `"default"`}
	if o.Severity() != "Major" || !containsAll(o.DebugMessage(), want) {
		s.t.Errorf("the status has severity %s and %q, want Major and %q", o.Severity(), o.DebugMessage(), want)
	}
	s.said(soon, "ClientMount failed", account, "may not get")
	wait.Within(s.t, soon, "a status line that says failing", func() bool { return containsAll(s.status(), []string{"1 failing"}) })
	s.setRights(granted())
	if o := s.Await(name, "mounted"); o.Severity() != "" {
		s.t.Errorf("the error stays in the status: %s", o.DebugMessage())
	}
	s.onceMounted(name)
}

// noRightToWrite takes patch away from a resource.
func noRightToWrite(s *env, resource, text string) {
	account := s.useAccount()
	r := granted()
	r[resource] = []any{"get", "list", "watch"}
	s.setRights(r)
	s.start()
	name := s.ask()
	line := s.said(soon, text, account, "may not patch", resource)
	s.hold(3 * time.Second)
	n := 0
	for _, l := range s.daemon.Log() {
		if message(l) == message(line) {
			n++
		}
	}
	if n != 1 {
		s.t.Errorf("%q was logged %d times", text, n)
	}
	// A node that cannot promise to unmount must not mount.
	s.isMounted(name, resource == "clientmounts/status")
	s.setRights(granted())
	s.Await(name, "mounted")
	s.onceMounted(name)
}
