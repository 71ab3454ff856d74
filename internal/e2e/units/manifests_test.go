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
)

// object is one document of a YAML file.
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
			t.Fatalf("%s: a document without kind or name, or one twice: %v", path, o)
		}
		all[kind+" "+name] = o
	}
	return all
}

// The accounts in the packages are, to the letter, those with which every test
// on a real API server runs.
func TestAccounts(t *testing.T) {
	want := objects(t, "internal/devcluster/manifests/accounts.yaml")
	got := map[string]object{}
	for _, file := range []string{"clientmountd-rbac.yaml", "nnf-dm-rbac.yaml"} {
		of := objects(t, "packaging/manifests/"+file)
		if len(of) != 4 {
			t.Errorf("%s holds %q, want account, secret, role and binding", file, slices.Sorted(maps.Keys(of)))
		}
		maps.Copy(got, of)
	}
	for name := range want {
		if !reflect.DeepEqual(got[name], want[name]) {
			t.Errorf("%s is\n%v\nand the tests run with\n%v", name, got[name], want[name])
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("%s is not what the tests run with", name)
	}
}

// at follows keys and positions into an object.
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

// Each daemon's account, which is the one of its role binding, has a share of
// the API server that it has for itself.
func TestFlowControl(t *testing.T) {
	for _, daemon := range []string{"clientmountd", "nnf-dm"} {
		of := objects(t, "packaging/manifests/"+daemon+"-flowcontrol.yaml")
		var account, schema, level object
		for _, o := range objects(t, "packaging/manifests/"+daemon+"-rbac.yaml") {
			if o["kind"] == "ServiceAccount" {
				account = o
			}
		}
		for _, o := range of {
			switch o["kind"] {
			case "FlowSchema":
				schema = o
			case "PriorityLevelConfiguration":
				level = o
			}
		}
		if len(of) != 2 || schema == nil || level == nil {
			t.Fatalf("%s: %q", daemon, slices.Sorted(maps.Keys(of)))
		}
		subject := at(schema, "spec", "rules", 0, "subjects", 0, "serviceAccount")
		want := object{"name": at(account, "metadata", "name"), "namespace": at(account, "metadata", "namespace")}
		if !reflect.DeepEqual(subject, want) {
			t.Errorf("%s: the schema is for %v, the account is %v", daemon, subject, want)
		}
		if got, want := at(schema, "spec", "priorityLevelConfiguration", "name"), at(level, "metadata", "name"); got != want || want == nil {
			t.Errorf("%s: the schema leads to %v, the level is %v", daemon, got, want)
		}
		// All nodes have one account: by user they would be one flow, and one
		// node could fill the queues of all.
		if by := at(schema, "spec", "distinguisherMethod", "type"); by != "ByNamespace" {
			t.Errorf("%s: fairness is %v", daemon, by)
		}
		if p, _ := at(schema, "spec", "matchingPrecedence").(float64); p <= 0 || p >= 9000 {
			t.Errorf("%s: precedence %v does not come before that of all service accounts", daemon, p)
		}
		if exempt := at(level, "spec", "type"); exempt != "Limited" {
			t.Errorf("%s: the level is %v", daemon, exempt)
		}
		queues, _ := at(level, "spec", "limited", "limitResponse", "queuing", "queues").(float64)
		length, _ := at(level, "spec", "limited", "limitResponse", "queuing", "queueLengthLimit").(float64)
		if queues*length < 12000 {
			t.Errorf("%s: %v requests can wait, fewer than the largest systems have nodes", daemon, queues*length)
		}
	}
}
