package conformance

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// The file that lists for jobs the rabbits that serve a Lustre file system. It is off by
// default and needs permissions that the shipped role does not grant.
var serversBehaviours = []behaviour{
	{"servers file of a workflow", lustreOnly, func(s *env) { s.serversFile(workflowLabels(), workflowLabels()) }},
	{"servers file of persistent storage", lustreOnly, func(s *env) { s.serversFile(persistentLabels(), persistentLabels()) }},
	{"servers file off", lustreOnly, serversOff},
	{"servers file impossible", lustreOnly, serversImpossible},
}

func lustreOnly(k *kind) bool { return k.typ == "lustre" }

func workflowLabels() map[string]any {
	return map[string]any{
		api.LabelOwnerKind: "Workflow", api.LabelOwnerName: "job7", api.LabelOwnerNamespace: "default",
		api.LabelWorkflowName: "job7", api.LabelWorkflowNamespace: "default", api.LabelDirectiveIndex: "0",
	}
}

func persistentLabels() map[string]any {
	return map[string]any{api.LabelOwnerKind: "PersistentStorageInstance", api.LabelOwnerName: "shared", api.LabelOwnerNamespace: "default"}
}

// lustreOwned returns the entry for a file system that belongs to the NnfStorage with the
// name of the test, with an owner for its root.
func (s *env) lustreOwned() fixture.MountSpec {
	s.Helper()
	m := s.k.spec(s.Path("m3"), 3)
	m.Own, m.UID, m.GID = true, 1234, 2345
	s.Apply(fixture.ClientMount("one", s.Node, fixture.ClientMountSpec{
		Profile: s.Profile, OwnerUID: s.Owner, Mounts: []fixture.MountSpec{m},
		Labels: map[string]string{api.LabelOwnerKind: "NnfStorage", api.LabelOwnerName: s.Node, api.LabelOwnerNamespace: "default"},
	}))
	s.Await("one", "mounted")
	return m
}

// write creates a configuration file.
func (s *env) write(text string) (path string) {
	s.Helper()
	path = s.Runtime + ".toml"
	s.Must(os.WriteFile(path, []byte("version = 1\n"+text), 0o600))
	return path
}

// grant grants the two permissions to the daemon's account.
func (s *env) grant() {
	s.Helper()
	s.Grant(s.Node, "nnf-system", "nnf-clientmount", []any{fixture.Rule(api.GroupNNF, "nnfstorages", "get"), fixture.Rule(api.GroupDWS, "servers", "list")})
}

// untilMay waits until the server applies the permissions of the account.
func (s *env) untilMay(allowed bool) {
	s.Helper()
	ctx := s.Context(patience)
	review, err := json.Marshal(map[string]any{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
		"spec": map[string]any{
			"user":               "system:serviceaccount:nnf-system:nnf-clientmount",
			"resourceAttributes": map[string]any{"verb": "get", "group": api.GroupNNF, "resource": "nnfstorages", "namespace": "default", "name": s.Node},
		},
	})
	s.Must(err)
	wait.Until(s.t, "the permissions of the account", func() bool {
		o, err := s.Cluster.Do(ctx, http.MethodPost, "/apis/authorization.k8s.io/v1/subjectaccessreviews", "application/json", review)
		s.Must(err)
		return o.At("status", "allowed") == allowed
	})
}

// remove also works in a cleanup, where the contexts of the test are cancelled.
func (s *env) remove(kind, ns string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s.Must(s.Cluster.Delete(ctx, kind, ns, s.Node))
}

// allocated creates the NnfStorage and the Servers of an allocation, which are found by
// their labels.
func (s *env) allocated(owner, found map[string]any) {
	s.Helper()
	set := func(label string, storage ...any) any {
		return map[string]any{"label": label, "allocationSize": 1 << 30, "storage": storage}
	}
	on := func(rabbit string, n int) any { return map[string]any{"name": rabbit, "allocationCount": n} }
	s.Apply(lab.Object{
		"apiVersion": api.GroupNNF + "/" + api.VersionsNNF[0], "kind": "NnfStorage",
		"metadata": map[string]any{"name": s.Node, "namespace": "default", "labels": owner},
		"spec":     map[string]any{"allocationSets": []any{}, "userID": 1234, "groupID": 2345},
	})
	s.Apply(lab.Object{
		"apiVersion": api.GroupDWS + "/" + api.VersionsDWS[0], "kind": "Servers",
		"metadata": map[string]any{"name": s.Node, "namespace": "default", "labels": found},
		"spec":     map[string]any{"allocationSets": []any{set("ost", on("rabbit-01", 2), on("rabbit-02", 1)), set("mgtmdt", on("rabbit-01", 1))}},
	})
	s.Cleanup(func() {
		for _, kind := range []string{"Servers", "NnfStorage"} {
			s.remove(kind, "default")
		}
	})
}

const wantServers = `{"mdt":[],"mgt":[],"mgtmdt":["rabbit-01"],"nnfNode":["rabbit-01","rabbit-02"],"ost":["rabbit-01","rabbit-01","rabbit-02"]}` + "\n"

func (s *env) serversFile(owner, found map[string]any) {
	s.Helper()
	s.UseProfile(fixture.ProfileSpec{})
	s.grant()
	s.allocated(owner, found)
	s.untilMay(true)
	s.run("--config=" + s.write("[mount]\nservers_file = true\n"))
	m := s.lustreOwned()
	file := filepath.Join(m.Path, ".nnf-servers.json")
	text, err := os.ReadFile(file)
	if err != nil || string(text) != wantServers {
		s.Errorf("%s: %s (%v), want %s", file, text, err, wantServers)
	}
	if st, err := os.Lstat(file); err != nil || st.Mode() != 0o644 || st.Sys().(*syscall.Stat_t).Uid != 1234 || st.Sys().(*syscall.Stat_t).Gid != 2345 {
		s.Errorf("%v %v, want mode 0644 of 1234:2345", st, err)
	}
	s.Delete("one")
	s.unmounted(m)
	s.ends()
}

func serversOff(s *env) {
	s.UseProfile(fixture.ProfileSpec{})
	s.run()
	m := s.lustreOwned()
	if list, err := os.ReadDir(m.Path); err != nil || len(list) > 0 {
		s.Errorf("in the root: %v %v", list, err)
	}
	s.Delete("one")
	s.ends()
}

// serversImpossible: without the permissions the mount is ready nevertheless, and the log
// has the missing permission.
func serversImpossible(s *env) {
	s.UseProfile(fixture.ProfileSpec{})
	s.untilMay(false)
	s.run("--config=" + s.write("[mount]\nservers_file = true\n"))
	m := s.lustreOwned()
	f := s.line("about the missing permission", func(f map[string]any) bool { return f["msg"] == "could not write the Lustre servers file" })
	if text, _ := f["error"].(string); !strings.Contains(text, "system:serviceaccount:nnf-system:nnf-clientmount") || !strings.Contains(text, "may not get nnfstorages") || f["mount_path"] != m.Path {
		s.Errorf("the line: %v", f)
	}
	s.Delete("one")
	s.ends()
}
