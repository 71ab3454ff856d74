package credentials

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// manifest is the role of a program and what its binding and account are called.
func manifest(t *testing.T, program string) (granted []string, account string) {
	t.Helper()
	text, err := os.ReadFile("../../../packaging/manifests/" + manifests[program])
	if err != nil {
		t.Fatal(err)
	}
	for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
		var o struct {
			Kind     string
			Metadata struct{ Name, Namespace string }
			Rules    []struct{ APIGroups, Resources, Verbs []string }
		}
		if err := yaml.Unmarshal(document, &o); err != nil {
			t.Fatal(err)
		}
		if o.Kind == "Secret" {
			account = o.Metadata.Namespace + "/" + o.Metadata.Name
		}
		for _, r := range o.Rules {
			for _, g := range r.APIGroups {
				for _, resource := range r.Resources {
					for _, verb := range r.Verbs {
						resource, sub, _ := strings.Cut(resource, "/")
						granted = append(granted, right{group: g, resource: resource, sub: sub, verb: verb}.String())
					}
				}
			}
		}
	}
	return granted, account
}

// What is asked for is what the manifest grants, no more and no less.
func TestRightsAreTheManifests(t *testing.T) {
	for program := range manifests {
		want, _ := manifest(t, program)
		var got []string
		for _, r := range rightsOf(program) {
			got = append(got, r.String())
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) || len(got) == 0 {
			t.Errorf("%s:\n%s\nthe manifest:\n%s", program, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if len(rightsOf("other")) > 0 {
		t.Error("rights of a program that is not known")
	}
}

// Those that a daemon uses come first, so that a missing one is named first.
func TestRightsInOrder(t *testing.T) {
	for program := range manifests {
		used := 0
		for i, r := range rightsOf(program) {
			if r.used {
				used++
				if used != i+1 {
					t.Errorf("%s: %v comes late", program, r)
				}
			}
		}
		if used < 3 {
			t.Errorf("%s uses %d", program, used)
		}
	}
}

// A tool that checks what nobody needs would keep sites from working: the words of
// the manifests and the table agree.
func TestOlderVerbsAreNotUsed(t *testing.T) {
	for _, r := range rightsOf("clientmountd") {
		if r.used && (r.verb == "update" || r.resource == "nnfstorageprofiles" && r.verb != "get") {
			t.Errorf("%v is said to be used", r)
		}
	}
	for _, r := range rightsOf("nnf-dm") {
		if r.used && (r.sub == "finalizers" || r.sub == "status") {
			t.Errorf("%v is said to be used", r)
		}
	}
}
