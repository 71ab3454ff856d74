package apiserver

import (
	"net/http"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

type rights map[string][]any // resource to verbs

// granted returns the permissions that an installation grants to clientmountd.
func granted() rights {
	return rights{
		"clientmounts":            {"get", "list", "patch", "update", "watch"},
		"clientmounts/finalizers": {"update"},
		"clientmounts/status":     {"get", "patch", "update"},
		"nnfstorageprofiles":      {"get", "list", "watch"},
	}
}

// useAccount gives the test a separate service account with the usual permissions.
func (s *env) useAccount() *fixture.Account {
	s.t.Helper()
	s.setRights(granted())
	return s.Account("nnf-system", s.Node, "ClientMount", s.Node)
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
		rules = append(rules, fixture.Rule(group, resource, verbs...))
	}
	s.Apply(fixture.Role(s.Node, rules))
}

// rightTests: permissions that the account loses. The message has the account, the verb and
// the resource, and the daemon recovers when the permission is granted again.
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
	s.Must(err)
	s.Must(s.Cluster.Delete(s.Context(soon), "ClusterRoleBinding", "", s.Node))
	account.Answers(account.Token(), http.StatusForbidden)
	s.Proxy.ClearRequests()
	s.Proxy.Reset()
	s.awaitLog(soon, lostText, account.User(), "may not watch", "clientmounts."+api.GroupDWS, s.Node)
	s.showsProblem(account.User(), "may not watch")
	s.hold(5 * time.Second)
	s.isMounted(stays, true)
	comes := s.ask()
	account.Bind(s.Node)
	s.back(1)
	s.Await(comes, "mounted")
	s.resumed(first, 0)
	s.logged("", "may not watch", "back")
	s.onceMounted(stays)
}

func noRightToList(s *env) {
	account := s.useAccount()
	r := granted()
	delete(r, "clientmounts")
	s.setRights(r)
	account.Answers(account.Token(), http.StatusForbidden)
	name := s.ask()
	s.launch()
	s.awaitLog(soon, lostText, account.User(), "may not list", "clientmounts."+api.GroupDWS, s.Node)
	s.showsProblem(account.User(), "may not list")
	s.hold(4 * time.Second)
	s.notReady()
	s.setRights(granted())
	s.ready(resume)
	s.Await(name, "mounted")
	s.back(1)
	s.logged("may not list", "back")
}

// The rabbit also sees this error, in the status.
func noRightToReadProfiles(s *env) {
	account := s.useAccount()
	r := granted()
	delete(r, "nnfstorageprofiles")
	s.setRights(r)
	s.start()
	name := s.ask()
	o := s.AwaitError(name)
	want := []string{account.User(), "may not get", "nnfstorageprofiles." + api.GroupNNF, `"default"`}
	if o.Severity() != "Major" || !lab.HasAll(o.DebugMessage(), want...) {
		s.t.Errorf("the status has severity %s and %q, want Major and %q", o.Severity(), o.DebugMessage(), want)
	}
	s.awaitLog(soon, "ClientMount failed", account.User(), "may not get")
	wait.Within(s.t, soon, "a status line with a failing object", func() bool { return strings.Contains(s.status(), "1 failing") })
	s.setRights(granted())
	if o := s.Await(name, "mounted"); o.Severity() != "" {
		s.t.Errorf("the error stays in the status: %s", o.DebugMessage())
	}
	s.onceMounted(name)
}

// noRightToWrite removes the permission to patch a resource.
func noRightToWrite(s *env, resource, text string) {
	account := s.useAccount()
	r := granted()
	r[resource] = []any{"get", "list", "watch"}
	s.setRights(r)
	s.start()
	name := s.ask()
	line := s.awaitLog(soon, text, account.User(), "may not patch", resource)
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
	// A node that cannot set the finalizer must not mount.
	s.isMounted(name, resource == "clientmounts/status")
	s.setRights(granted())
	s.Await(name, "mounted")
	s.onceMounted(name)
}
