package schema

import (
	"os"
	"path/filepath"
	"testing"
)

func TestValidate(t *testing.T) {
	dir := t.TempDir()
	file := func(name, data string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good.json", `{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "required": ["at"],
		"properties": {"at": {"type": "string", "format": "date-time"},
			"list": {"type": "array", "items": {"type": "object", "properties": {"y": {"type": "integer"}}}}}}`)
	for document, ok := range map[string]bool{
		`{"at": "2026-01-02T03:04:05Z"}`:                         true,
		`{"at": "2026-01-02T03:04:05Z", "list": [{"y": 1}]}`:     true,
		`{"at": "2026-01-02T03:04:05Z", "list": [{"y": 1.5}]}`:   false,
		`{"at": "2026-01-02T03:04:05Z", "list": [{"other": 1}]}`: false,
		`{"at": "yesterday"}`:                                    false,
		`{"at": "2026-01-02T03:04:05Z", "x": 1}`:                 false,
		`{}`:                                                     false,
		`{} {}`:                                                  false,
		``:                                                       false,
	} {
		if err := validate(good, []byte(document)); (err == nil) != ok {
			t.Errorf("%s: %v", document, err)
		}
	}
	for name, data := range map[string]string{"bad.json": `{"type": "no such type"}`, "no.json": `{`} {
		if validate(file(name, data), []byte(`{}`)) == nil {
			t.Errorf("%s: an invalid schema was accepted", name)
		}
	}
	if validate(filepath.Join(dir, "none.json"), []byte(`{}`)) == nil {
		t.Error("an absent schema was accepted")
	}
}

// Check finds the schemas, each of them is valid, and it fails for another document.
func TestSchemas(t *testing.T) {
	dir, err := directory()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) < 3 {
		t.Fatal(err, files)
	}
	for _, file := range files {
		if err := validate(file, []byte(`{"version": 0}`)); err == nil {
			t.Errorf("%s accepts any document", file)
		}
	}
}
