package stage

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// ApplyFile does what kubectl apply --server-side --validate=strict does with a
// file, and returns what the server has then, by kind.
func (s *Stage) ApplyFile(file string) map[string]lab.Object {
	s.t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	made := map[string]lab.Object{}
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		var o lab.Object
		if err := yaml.Unmarshal(document, &o); err != nil {
			s.t.Fatal(err)
		}
		kind := o.String("kind")
		path := lab.Path(kind, o.Namespace(), o.Name())
		body, err := json.Marshal(o)
		if err != nil {
			s.t.Fatal(err)
		}
		o, err = s.Cluster.Do(s.Context(30*time.Second), http.MethodPatch, path+"?fieldManager=administrator&fieldValidation=Strict", "application/apply-patch+yaml", body)
		if err != nil {
			s.t.Fatalf("%s: %s %v", file, path, err)
		}
		made[kind] = o
	}
	return made
}
