package units

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/compute-daemons/compute-daemons/internal/api"
)

// object is a document of a YAML file.
type object = map[string]any

func objects(t *testing.T, path string) map[string]object {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]object{}
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		var o object
		if err := yaml.UnmarshalStrict(document, &o); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		meta, _ := o["metadata"].(object)
		name, _ := meta["name"].(string)
		kind, _ := o["kind"].(string)
		if kind == "" || name == "" || all[kind+" "+name] != nil {
			t.Fatalf("%s: a document without kind or name, or a duplicate: %v", path, o)
		}
		all[kind+" "+name] = o
	}
	return all
}

// The accounts in the packages are the accounts of all tests with a real API server.
func TestAccounts(t *testing.T) {
	want := objects(t, "internal/devcluster/manifests/accounts.yaml")
	got := map[string]object{}
	for _, file := range []string{"clientmountd-rbac.yaml", "nnf-dm-rbac.yaml"} {
		of := objects(t, "packaging/manifests/"+file)
		if len(of) != 4 {
			t.Errorf("%s has %q, want account, secret, role and binding", file, slices.Sorted(maps.Keys(of)))
		}
		maps.Copy(got, of)
	}
	for name := range want {
		if !reflect.DeepEqual(got[name], want[name]) {
			t.Errorf("%s is\n%v\nbut the tests use\n%v", name, got[name], want[name])
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("the tests do not use %s", name)
	}
}

// at returns the value at a path of keys and indices.
func at(o any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := o.(object)
			o = m[p]
		case int:
			l, _ := o.([]any)
			if p >= len(l) {
				return nil
			}
			o = l[p]
		}
	}
	return o
}

// The account of each daemon has dedicated priority levels of the API server: one for the requests
// about its node, with a flow for each namespace, and one with a single flow for the objects that all
// nodes read.
func TestFlowControl(t *testing.T) {
	for _, daemon := range []string{"clientmountd", "nnf-dm"} {
		schemas, levels := map[any]object{}, map[any]object{}
		var account object
		for _, o := range objects(t, "packaging/manifests/"+daemon+"-rbac.yaml") {
			if o["kind"] == "ServiceAccount" {
				account = o
			}
		}
		for _, o := range objects(t, "packaging/manifests/"+daemon+"-flowcontrol.yaml") {
			of := map[any]map[any]object{"FlowSchema": schemas, "PriorityLevelConfiguration": levels}[o["kind"]]
			if of == nil {
				t.Fatalf("%s: %v", daemon, o)
			}
			of[at(o, "metadata", "name")] = o
		}
		name, _ := at(account, "metadata", "name").(string)
		nodes, shared := schemas[name], schemas[name+"-shared"]
		if len(schemas) != 2 || len(levels) != 2 || nodes == nil || shared == nil {
			t.Fatalf("%s: %d schemas, %d levels", daemon, len(schemas), len(levels))
		}
		for name, schema := range schemas {
			level := levels[at(schema, "spec", "priorityLevelConfiguration", "name")]
			want := object{"name": at(account, "metadata", "name"), "namespace": at(account, "metadata", "namespace")}
			if subject := at(schema, "spec", "rules", 0, "subjects", 0, "serviceAccount"); !reflect.DeepEqual(subject, want) {
				t.Errorf("%s: the schema is for %v, the account is %v", name, subject, want)
			}
			if p, _ := at(schema, "spec", "matchingPrecedence").(float64); p <= 0 || p >= 9000 {
				t.Errorf("%s: precedence %v is not before that of all service accounts", name, p)
			}
			if exempt := at(level, "spec", "type"); exempt != "Limited" {
				t.Errorf("%s: the type of the level is %v", name, exempt)
			}
			queues, _ := at(level, "spec", "limited", "limitResponse", "queuing", "queues").(float64)
			length, _ := at(level, "spec", "limited", "limitResponse", "queuing", "queueLengthLimit").(float64)
			if queues*length < 12000 {
				t.Errorf("%s: only %v requests can wait, less than the nodes of the largest systems", name, queues*length)
			}
		}
		// All nodes use one account. By user they would be one flow, and one node could
		// fill all queues.
		if by := at(nodes, "spec", "distinguisherMethod", "type"); by != "ByNamespace" {
			t.Errorf("%s: distinguisher method %v", daemon, by)
		}
		if by := at(shared, "spec", "distinguisherMethod"); by != nil {
			t.Errorf("%s: distinguisher method %v for shared objects", daemon, by)
		}
		// What the role of one node grants outside the namespaces of the node and its rabbit is
		// what all nodes read.
		rules, _ := at(shared, "spec", "rules", 0, "resourceRules").([]any)
		for _, r := range map[string][]api.Rule{"clientmountd": api.RulesClientmountd, "nnf-dm": api.RulesDataMovement}[daemon] {
			if r.Used == "" || r.Scope != api.ScopeAll && r.Scope != api.ScopeSystem && r.Scope != api.ScopeProfiles {
				continue
			}
			covers := func(o any) bool {
				groups, _ := at(o, "apiGroups").([]any)
				resources, _ := at(o, "resources").([]any)
				return slices.Contains(groups, any(r.Group)) && slices.Contains(resources, any(r.Resource)) && at(o, "clusterScope") == true
			}
			if !slices.ContainsFunc(rules, covers) {
				t.Errorf("%s: the schema of shared objects lacks %s.%s", daemon, r.Resource, r.Group)
			}
		}
		first, _ := at(shared, "spec", "matchingPrecedence").(float64)
		if second, _ := at(nodes, "spec", "matchingPrecedence").(float64); first >= second {
			t.Errorf("%s: precedence %v of the shared objects, %v of all", daemon, first, second)
		}
	}
}
