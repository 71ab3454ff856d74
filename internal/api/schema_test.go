package api_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/lus"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// A schema, as far as we compare it.
type schema struct {
	Type                 string            `json:"type"`
	IntOrString          bool              `json:"x-kubernetes-int-or-string"`
	Properties           map[string]schema `json:"properties"`
	Items                *schema           `json:"items"`
	AdditionalProperties *schema           `json:"additionalProperties"`
}

type definition struct {
	Spec struct {
		Group string `json:"group"`
		Names struct {
			Kind string `json:"kind"`
		} `json:"names"`
		Versions []struct {
			Name   string `json:"name"`
			Schema struct {
				OpenAPI schema `json:"openAPIV3Schema"`
			} `json:"schema"`
		} `json:"versions"`
	} `json:"spec"`
}

// Every field of our objects is in the schema by that name and type, in every
// version that we speak. A name with a mistake in it would be dropped without a
// word by the API server.
func TestSchemas(t *testing.T) {
	versions := map[string][]string{api.GroupDWS: api.VersionsDWS, api.GroupNNF: api.VersionsNNF, api.GroupLUS: api.VersionsLUS}
	for file, c := range map[string]struct {
		group, kind string
		object      any
	}{
		"clientmounts":            {api.GroupDWS, "ClientMount", dws.ClientMount{}},
		"workflows":               {api.GroupDWS, dws.KindWorkflow, dws.Workflow{}},
		"systemconfigurations":    {api.GroupDWS, "SystemConfiguration", dws.SystemConfiguration{}},
		"nnfdatamovements":        {api.GroupNNF, nnf.KindDataMovement, nnf.DataMovement{}},
		"nnfdatamovementprofiles": {api.GroupNNF, nnf.KindDataMovementProfile, nnf.DataMovementProfile{}},
		"lustrefilesystems":       {api.GroupLUS, lus.KindLustreFileSystem, lus.LustreFileSystem{}},
	} {
		data, err := os.ReadFile(filepath.Join("../devcluster/manifests/crds", file+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		var d definition
		if err := yaml.Unmarshal(data, &d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if d.Spec.Group != c.group || d.Spec.Names.Kind != c.kind {
			t.Errorf("%s is %s of %s, want %s of %s", file, d.Spec.Names.Kind, d.Spec.Group, c.kind, c.group)
		}
		known := map[string]schema{}
		for _, v := range d.Spec.Versions {
			known[v.Name] = v.Schema.OpenAPI
		}
		for _, v := range versions[c.group] {
			s, ok := known[v]
			if !ok {
				t.Errorf("%s: version %s is not defined", file, v)
				continue
			}
			compare(t, c.kind+" "+v, reflect.TypeOf(c.object), s)
		}
	}
}

func compare(t *testing.T, path string, typ reflect.Type, s schema) {
	t.Helper()
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	want := ""
	switch {
	case typ == reflect.TypeFor[nnf.MicroTime]() || typ == reflect.TypeFor[nnf.Duration]():
		want = "string"
	case typ.Kind() == reflect.Struct, typ.Kind() == reflect.Map:
		want = "object"
	case typ.Kind() == reflect.Slice:
		want = "array"
	case typ.Kind() == reflect.String:
		want = "string"
	case typ.Kind() == reflect.Bool:
		want = "boolean"
	case typ.Kind() >= reflect.Int && typ.Kind() <= reflect.Int64:
		want = "integer"
	}
	if s.Type != want {
		t.Errorf("%s: %v is %q in the schema, want %q", path, typ, s.Type, want)
		return
	}
	switch {
	case want == "array":
		if s.Items == nil {
			t.Errorf("%s has no items in the schema", path)
			return
		}
		compare(t, path+"[]", typ.Elem(), *s.Items)
	case want == "object" && typ.Kind() == reflect.Struct:
		for f := range fields(typ) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			p, ok := s.Properties[name]
			if !ok {
				t.Errorf("%s has no field %q in the schema", path, name)
				continue
			}
			compare(t, path+"."+name, f.Type, p)
		}
	}
}

// fields yields the fields that are written, without the metadata of Kubernetes.
func fields(typ reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			meta := f.Type == reflect.TypeFor[metav1.TypeMeta]() || f.Type == reflect.TypeFor[metav1.ObjectMeta]()
			if meta || !f.IsExported() {
				continue
			}
			if !yield(f) {
				return
			}
		}
	}
}
