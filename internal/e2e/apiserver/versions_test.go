package apiserver

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

const definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

// future is a version that this program does not support.
const future = "v1alpha99"

// serve makes the server serve only these versions of a group, and waits until it does.
func (s *env) serve(group string, versions ...string) {
	s.t.Helper()
	list, err := s.Cluster.Do(s.Context(soon), http.MethodGet, definitions, "", nil)
	s.Must(err)
	items, _ := list["items"].([]any)
	for i := range items {
		crd := lab.Object(list.At("items", i).(map[string]any))
		if crd.String("spec", "group") != group {
			continue
		}
		s.serveResource(crd, versions...)
	}
	versions = slices.Sorted(slices.Values(versions))
	wait.Within(s.t, soon, "the server serves "+strings.Join(versions, " "), func() bool {
		o, err := s.Cluster.Do(s.Context(soon), http.MethodGet, "/apis/"+group, "", nil)
		if err != nil {
			return len(versions) == 0 && lab.IsNotFound(err)
		}
		var got []string
		all, _ := o["versions"].([]any)
		for _, v := range all {
			name, _ := v.(map[string]any)["version"].(string)
			got = append(got, name)
		}
		slices.Sort(got)
		return slices.Equal(got, versions)
	})
}

// serveResource makes the server serve only these versions of the resource of a CRD.
func (s *env) serveResource(crd lab.Object, versions ...string) {
	s.t.Helper()
	var now []any
	for _, v := range crd.At("spec", "versions").([]any) {
		version := v.(map[string]any)
		if version["name"] == future {
			continue
		}
		version["served"] = slices.Contains(versions, version["name"].(string))
		now = append(now, version)
	}
	if slices.Contains(versions, future) {
		fresh := maps.Clone(now[0].(map[string]any))
		fresh["name"], fresh["served"], fresh["storage"] = future, true, false
		now = append(now, fresh)
	}
	s.define(crd.Name(), map[string]any{"versions": now})
}

// define changes the spec of a CRD.
func (s *env) define(name string, spec map[string]any) {
	s.t.Helper()
	if _, err := s.Cluster.PatchPath(s.Context(soon), definitions+"/"+name, "application/merge-patch+json", lab.Object{"spec": spec}); err != nil {
		s.t.Fatal(err)
	}
}

// serveAll restores the normal state.
func (s *env) serveAll() {
	s.t.Helper()
	s.serve(api.GroupDWS, api.VersionsDWS...)
	s.serve(api.GroupNNF, api.VersionsNNF...)
}

// spoken waits for a successful request of a class and returns the version in its path.
func (s *env) spoken(class string) (version string) {
	s.t.Helper()
	wait.Within(s.t, soon, "a successful request of class "+class, func() bool {
		for _, r := range s.Proxy.Requests() {
			if r.Class == class && r.Code() == http.StatusOK {
				version = strings.Split(r.Path, "/")[3] // /apis/group/version
				return true
			}
		}
		return false
	})
	return version
}

// An older server: the daemon uses a version that both support.
func olderVersionOnly(s *env) {
	s.UseProxy()
	name := s.ask()
	s.serve(api.GroupDWS, api.VersionsDWS[1])
	s.serve(api.GroupNNF, api.VersionsNNF[1])
	s.start()
	wait.Within(s.t, soon, "the mount", func() bool {
		_, ok, _ := s.MountAt(s.Path(name))
		return ok
	})
	for class, want := range map[string]string{
		lab.ClassList: api.VersionsDWS[1], lab.ClassWatch: api.VersionsDWS[1], lab.ClassGet: api.VersionsNNF[1],
		lab.ClassPatchObject: api.VersionsDWS[1], lab.ClassPatchStatus: api.VersionsDWS[1],
	} {
		if got := s.spoken(class); got != want {
			s.t.Errorf("%s in version %s, want %s", class, got, want)
		}
	}
	s.settled(name)
	s.serveAll()
	s.Await(name, "mounted")
	s.onceMounted(name)
}

// The version that the daemon uses is removed: it uses the other one.
func versionGoes(s *env) {
	s.UseProxy()
	s.start()
	stays := s.mounted()
	if got := s.spoken(lab.ClassWatch); got != api.VersionsDWS[0] {
		s.t.Fatalf("uses %s", got)
	}
	before := s.ask() // uses the newer version of both groups
	s.Await(before, "mounted")
	s.Proxy.ClearRequests()
	s.serve(api.GroupDWS, api.VersionsDWS[1])
	s.serve(api.GroupNNF, api.VersionsNNF[1])
	wait.Within(s.t, resume, "a watch in the older version", func() bool {
		return slices.ContainsFunc(s.Proxy.Requests(), func(r *lab.Request) bool {
			return isWatch(r) && r.Code() == 200 && strings.Contains(r.Path, api.VersionsDWS[1])
		})
	})
	s.isMounted(stays, true)
	wait.Within(s.t, resume, "a status line that the server answers", s.answers)

	// Back again: new requests use only the newer version.
	s.serve(api.GroupDWS, api.VersionsDWS[0])
	s.serve(api.GroupNNF, api.VersionsNNF[0])
	comes := s.ask()
	s.Await(comes, "mounted")
	s.serveAll()
	s.isMounted(stays, true)
	s.onceMounted(stays)
}

// The version that the daemon uses is removed for ClientMounts only, and the other resources of the
// group keep it: the daemon uses the other version.
func mountsVersionGoes(s *env) {
	newest, older := api.VersionsDWS[0], api.VersionsDWS[1]
	s.UseProxy()
	s.start()
	stays := s.mounted()
	if got := s.spoken(lab.ClassWatch); got != newest {
		s.t.Fatalf("uses %s", got)
	}
	s.Proxy.ClearRequests()
	crd, err := s.Cluster.Do(s.Context(soon), http.MethodGet, definitions+"/clientmounts."+api.GroupDWS, "", nil)
	s.Must(err)
	s.serveResource(crd, older)
	inOlder := func(r *lab.Request) bool { return isWatch(r) && r.Code() == 200 && strings.Contains(r.Path, older) }
	wait.Within(s.t, resume, "a watch in the older version", func() bool { return slices.ContainsFunc(s.Proxy.Requests(), inOlder) })
	wait.Within(s.t, resume, "a status line that the server answers", s.answers)
	s.isMounted(stays, true)
	group, err := s.Cluster.Do(s.Context(soon), http.MethodGet, "/apis/"+api.GroupDWS+"/"+newest, "", nil)
	if resources, _ := group["resources"].([]any); err != nil || len(resources) == 0 {
		s.t.Fatalf("the group has no other resources in %s: %v, %v", newest, group, err)
	}
	// A lookup is two requests. It is repeated if the server still lists the resource in the removed
	// version.
	if n := s.Proxy.Count(lab.ClassDiscovery); n < 2 || n > 12 {
		s.t.Errorf("%d requests to find the version", n)
	}
	s.serveAll()
	comes := s.ask()
	s.Await(comes, "mounted")
	s.onceMounted(stays)
	s.onceMounted(comes)
}

// A server that is too new: the message lists the versions of both sides.
func noKnownVersion(s *env) {
	running := onServer(s.t, s.Cluster)
	running.start()
	stays := running.mounted()
	s.serve(api.GroupDWS, future)
	s.launch()
	for _, one := range []*env{s, running} {
		one.awaitLog(resume, lostText, "serves "+api.GroupDWS+" in "+future, "this program supports "+strings.Join(api.VersionsDWS, ", "))
		one.showsProblem(future)
	}
	s.notReady()
	running.isMounted(stays, true)
	s.serveAll()
	s.ready(resume)
	wait.Within(running.t, resume, "a status line that the server answers", running.answers)
	running.onceMounted(stays)
	running.finish()
}

func notInstalled(s *env) {
	s.serve(api.GroupDWS)
	s.launch()
	s.awaitLog(soon, lostText, "does not serve "+api.GroupDWS, "check that its CRDs are installed")
	s.showsProblem("does not serve")
	s.notReady()
	s.serveAll()
	s.ready(resume)
	s.back(1)
	// A server whose CRDs are installed again may briefly respond with 429.
	if n := strings.Count(logOf(s), "check that its CRDs are installed"); n != 1 {
		s.t.Errorf("logged %d times that the CRDs are missing", n)
	}
}

// The server converts objects with a service that is not available, as during an upgrade of
// the rabbit's software. It then always reports that it is initializing.
func webhookAbsent(s *env) {
	const clientMounts = "clientmounts." + api.GroupDWS
	name := s.ask()
	s.define(clientMounts, map[string]any{"conversion": map[string]any{"strategy": "Webhook", "webhook": map[string]any{
		"conversionReviewVersions": []any{"v1"}, "clientConfig": map[string]any{"url": "https://127.0.0.1:1/convert"},
	}}})
	s.serve(api.GroupDWS, api.VersionsDWS[1])
	s.launch()
	s.awaitLog(soon, lostText, "storage is (re)initializing", "check the conversion webhook of these objects")
	s.showsProblem("conversion webhook")
	s.hold(8 * time.Second)
	s.notReady()
	s.define(clientMounts, map[string]any{"conversion": map[string]any{"strategy": "None", "webhook": nil}})
	s.serveAll()
	s.ready(resume)
	s.Await(name, "mounted")
	s.onceMounted(name)
}
