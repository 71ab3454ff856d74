package reference

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/text/checklist"
	"github.com/compute-daemons/compute-daemons/internal/timeline"
)

// schemas are the documents with a JSON Schema. The descriptions in a schema are the rows of the
// table of the document in documents.
var schemas = []struct {
	name     string   // of the file in packaging/schemas
	programs []string // that print the document
	title    string   // of the document in documents
	output   string   // the commands that print it
	version  int
	of       reflect.Type
	// embedded is the title of a document of clientmountd, parts of which are in this one below the
	// path in.
	embedded, in string
}{
	{name: "clientmountd-mounts", programs: []string{"clientmountd"}, title: "Output of mounts and wait", output: "clientmountd mounts -o json, clientmountd wait -o json",
		version: mountstate.MountsVersion, of: reflect.TypeFor[mountstate.Mounts]()},
	{name: "clientmountd-health", programs: []string{"clientmountd"}, title: "Output of health", output: "clientmountd health -o json",
		version: mountstate.HealthVersion, of: reflect.TypeFor[mountstate.Health]()},
	{name: "clientmountd-timeline", programs: []string{"clientmountd"}, title: timelineTitle, output: "clientmountd timeline -o json",
		version: mountstate.TimelineVersion, of: reflect.TypeFor[mountstate.Timeline]()},
	{name: "nnf-deploy-timeline", programs: []string{"nnf-deploy"}, title: timelineTitle, output: "nnf-deploy timeline -o json",
		version: timeline.DocumentVersion, of: reflect.TypeFor[timeline.Document](), embedded: timelineTitle, in: "nodes[]."},
	{name: "doctor", programs: []string{"clientmountd", "nnf-dmctl"}, title: "Output of doctor", output: "clientmountd doctor -o json, nnf-dmctl doctor -o json",
		version: checklist.Version, of: reflect.TypeFor[checklist.Document]()},
}

// schemaName returns the name of the JSON Schema of a document, or "".
func schemaName(program, title string) string {
	for _, one := range schemas {
		if one.title == title && slices.Contains(one.programs, program) {
			return one.name + ".json"
		}
	}
	return ""
}

// timelineTitle is the title of the output of timeline of two programs.
const timelineTitle = "Output of timeline"

// words are the values of the types that have a fixed list of them.
var words = map[reflect.Type][]string{
	reflect.TypeFor[mountstate.State]():   spelled(mountstate.States),
	reflect.TypeFor[mountstate.Verdict](): spelled([]mountstate.Verdict{mountstate.VerdictOK, mountstate.VerdictProblem, mountstate.VerdictUnknown}),
	reflect.TypeFor[mountstate.Action]():  spelled([]mountstate.Action{mountstate.ActionDrain, mountstate.ActionWait, mountstate.ActionNone}),
	reflect.TypeFor[mountstate.Cause]():   causeWords(),
	reflect.TypeFor[checklist.State]():    spelled(checklist.States),
}

func spelled[T ~string](list []T) (out []string) {
	for _, w := range list {
		out = append(out, string(w))
	}
	return out
}

func causeWords() (out []string) {
	for _, c := range mountstate.Causes {
		out = append(out, string(c.Cause))
	}
	return out
}

// schema is the part of JSON Schema that the documents need. Further properties are allowed, because
// fields may be added to a version of a document.
type schema struct {
	Dialect     string             `json:"$schema,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        string             `json:"type"`
	Format      string             `json:"format,omitempty"`
	Const       int                `json:"const,omitempty"`
	Enum        []string           `json:"enum,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Required    []string           `json:"required,omitempty"`
	Items       *schema            `json:"items,omitempty"`
}

// Schemas returns the JSON Schema of each document, by the path of its file.
func Schemas() (map[string]string, error) {
	out := map[string]string{}
	for _, one := range schemas {
		rows := rowsOf(one.programs[0], one.title)
		for name, meaning := range rowsOf("clientmountd", one.embedded) {
			if strings.Contains(name, "[].") {
				rows[one.in+name] = meaning
			}
		}
		s, err := schemaOf(one.of, "", rows)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.name, err)
		}
		if len(rows) > 0 {
			return nil, fmt.Errorf("%s: rows without a field: %v", one.name, rows)
		}
		s.Dialect, s.Title = "https://json-schema.org/draft/2020-12/schema", one.output
		s.Properties["version"].Const = one.version
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(s); err != nil {
			return nil, err
		}
		out["packaging/schemas/"+one.name+".json"] = b.String()
	}
	return out, nil
}

// rowsOf returns the meanings of the fields of a document.
func rowsOf(program, title string) map[string]string {
	rows := map[string]string{}
	for _, d := range documents[program] {
		for _, f := range d.fields {
			if d.title == title {
				rows[f.name] = strings.ReplaceAll(f.meaning, "`", "")
			}
		}
	}
	return rows
}

// schemaOf returns the schema of a type. It removes the descriptions that it uses from rows, and
// returns an error if one is missing.
func schemaOf(of reflect.Type, path string, rows map[string]string) (*schema, error) {
	s := &schema{Enum: words[of]}
	switch {
	case of == reflect.TypeFor[time.Time]():
		s.Type, s.Format = "string", "date-time"
	case of.Kind() == reflect.Pointer:
		return schemaOf(of.Elem(), path, rows)
	case of.Kind() == reflect.Slice:
		s.Type = "array"
		var err error
		s.Items, err = schemaOf(of.Elem(), path+"[]", rows)
		return s, err
	case of.Kind() == reflect.Struct:
		s.Type, s.Properties, s.Description = "object", map[string]*schema{}, rows[path]
		delete(rows, path)
		for i := range of.NumField() {
			if of.Field(i).Anonymous { // its fields are part of the object
				e, err := schemaOf(of.Field(i).Type, path, rows)
				if err != nil {
					return nil, err
				}
				maps.Copy(s.Properties, e.Properties)
				s.Required = append(s.Required, e.Required...)
				continue
			}
			name, options, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			p, err := schemaOf(of.Field(i).Type, strings.TrimPrefix(path+"."+name, "."), rows)
			if err != nil {
				return nil, err
			}
			if s.Properties[name] = p; options == "" {
				s.Required = append(s.Required, name)
			}
		}
		return s, nil
	case of.Kind() == reflect.String:
		s.Type = "string"
	case of.Kind() == reflect.Bool:
		s.Type = "boolean"
	case of.Kind() == reflect.Int || of.Kind() == reflect.Uint32:
		s.Type = "integer"
	case of.Kind() == reflect.Float64:
		s.Type = "number"
	default:
		return nil, fmt.Errorf("%s: no schema for %v", path, of)
	}
	if s.Description = rows[path]; s.Description == "" {
		return nil, fmt.Errorf("%s is not explained", path)
	}
	delete(rows, path)
	return s, nil
}
