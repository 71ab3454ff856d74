package apiserver

import (
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// rightScenes: rights that the account loses. The message names the account,
// the verb and the resource, and all heals when the right is back.
var rightScenes = map[string]func(*env){
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
