package api_test

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/lus"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// schema has the parts of a JSON schema that define fields.
type schema struct {
	Properties           map[string]*schema `json:"properties"`
	Items                *schema            `json:"items"`
	AdditionalProperties *schema            `json:"additionalProperties"`
	Preserve             bool               `json:"x-kubernetes-preserve-unknown-fields"`
	Enum                 []string           `json:"enum"`
}

type definition struct {
	Spec struct {
		Group string
		Names struct{ Kind string }

		Versions []struct {
			Name   string
			Served bool
			Schema struct {
				Schema schema `json:"openAPIV3Schema"`
			}
		}
	}
}

// definitions reads the custom resource definitions of the test API server, or those in
// the directory $CRDS.
func definitions(t *testing.T) map[string]definition {
	t.Helper()
	dir := os.Getenv("CRDS")
	if dir == "" {
		dir = "../devcluster/manifests/crds"
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no definitions in ", dir, err)
	}
	out := map[string]definition{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d definition
		if err := yaml.Unmarshal(data, &d); err != nil {
			t.Fatal(file, err)
		}
		out[d.Spec.Names.Kind] = d
	}
	return out
}

// The API server drops unknown fields silently: a mount could lack a value, or a status
// could be lost. So each field that the daemons read or write must be in the schema, in
// every supported version.
func TestFieldsExist(t *testing.T) {
	crds := definitions(t)
	for _, test := range []struct {
		kind, group string
		known       []string
		object      any
	}{
		{"ClientMount", api.GroupDWS, api.VersionsDWS, dws.ClientMount{}},
		{"Servers", api.GroupDWS, api.VersionsDWS, dws.Servers{}},
		{"NnfStorageProfile", api.GroupNNF, api.VersionsNNF, nnf.StorageProfile{}},
		{dws.KindWorkflow, api.GroupDWS, api.VersionsDWS, dws.Workflow{}},
		{"SystemConfiguration", api.GroupDWS, api.VersionsDWS, dws.SystemConfiguration{}},
		{nnf.KindDataMovement, api.GroupNNF, api.VersionsNNF, nnf.DataMovement{}},
		{nnf.KindDataMovementProfile, api.GroupNNF, api.VersionsNNF, nnf.DataMovementProfile{}},
		{lus.KindLustreFileSystem, api.GroupLUS, api.VersionsLUS, lus.LustreFileSystem{}},
	} {
		d, ok := crds[test.kind]
		if !ok {
			t.Errorf("no definition of %s", test.kind)
			continue
		}
		if d.Spec.Group != test.group {
			t.Errorf("%s has group %s, want %s", test.kind, d.Spec.Group, test.group)
		}
		spoken := 0
		for _, v := range d.Spec.Versions {
			if !v.Served || !slices.Contains(test.known, v.Name) {
				continue
			}
			spoken++
			checkFields(t, test.kind+"/"+v.Name, reflect.TypeOf(test.object), &v.Schema.Schema)
		}
		if spoken == 0 {
			t.Errorf("none of the versions %v of %s is served", test.known, test.kind)
		}
	}
}

func checkFields(t *testing.T, where string, typ reflect.Type, s *schema) {
	t.Helper()
	switch typ.Kind() {
	case reflect.Pointer:
		checkFields(t, where, typ.Elem(), s)
		return
	case reflect.Slice:
		if s.Items == nil && !s.Preserve {
			t.Errorf("%s is not a list in the schema", where)
		} else if s.Items != nil {
			checkFields(t, where+"[]", typ.Elem(), s.Items)
		}
		return
	case reflect.Map:
		if s.AdditionalProperties == nil && !s.Preserve {
			t.Errorf("%s is not a map in the schema", where)
		}
		return
	case reflect.Struct:
	default:
		return
	}
	for f := range typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "metadata" || !f.IsExported() {
			continue
		}
		switch sub := s.Properties[name]; {
		case sub != nil:
			checkFields(t, where+"."+name, f.Type, sub)
		case !s.Preserve:
			t.Errorf("%s.%s is not in the schema", where, name)
		}
	}
}

// The enumeration values in the code are those of the schema.
func TestValuesExist(t *testing.T) {
	for _, v := range definitions(t)["ClientMount"].Spec.Versions {
		if !slices.Contains(api.VersionsDWS, v.Name) {
			continue
		}
		root := &v.Schema.Schema
		mount := root.Properties["spec"].Properties["mounts"].Items
		for _, test := range []struct {
			name  string
			have  []string
			words []string
		}{
			{"desiredState", root.Properties["spec"].Properties["desiredState"].Enum, []string{string(dws.Mounted), string(dws.Unmounted)}},
			{"type", mount.Properties["type"].Enum, []string{dws.TypeLustre, dws.TypeXFS, dws.TypeGFS2, dws.TypeRaw}},
			{"device.type", mount.Properties["device"].Properties["type"].Enum, []string{dws.DeviceLustre, dws.DeviceLVM, dws.DeviceReference}},
			{"severity", root.Properties["status"].Properties["error"].Properties["severity"].Enum, []string{string(dws.Minor), string(dws.Major), string(dws.Fatal)}},
			{"error type", root.Properties["status"].Properties["error"].Properties["type"].Enum, []string{string(dws.Internal), string(dws.User), string(dws.WLM)}},
		} {
			slices.Sort(test.have)
			slices.Sort(test.words)
			if !slices.Equal(test.have, test.words) {
				t.Errorf("%s: %s is one of %v in the schema, and of %v in the code", v.Name, test.name, test.have, test.words)
			}
		}
	}
}

// Newest first: discovery uses the first version that is served.
func TestVersionsAreInOrder(t *testing.T) {
	for group, versions := range map[string][]string{api.GroupDWS: api.VersionsDWS, api.GroupNNF: api.VersionsNNF, api.GroupLUS: api.VersionsLUS} {
		for i := 1; i < len(versions); i++ {
			a, b := versions[i-1], versions[i]
			if older := len(a) < len(b) || len(a) == len(b) && a < b; older && strings.HasPrefix(a, "v1alpha") {
				t.Errorf("%s: %s precedes %s", group, a, b)
			}
		}
		if len(versions) == 0 {
			t.Errorf("%s: no version", group)
		}
	}
}
