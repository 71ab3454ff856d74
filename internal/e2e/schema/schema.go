// Package schema checks JSON documents against the JSON Schemas in packaging/schemas, in tests.
//
// It must not know the documents.
package schema

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Check fails the test if the document does not match the schema of this name in packaging/schemas,
// or has a field that the schema does not have.
func Check(t testing.TB, name string, document []byte) {
	t.Helper()
	dir, err := directory()
	if err == nil {
		err = validate(filepath.Join(dir, name+".json"), document)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, document)
	}
}

// directory returns packaging/schemas of the module that contains the working directory.
func directory() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, missing := os.Stat(filepath.Join(dir, "go.mod")); missing == nil {
			return filepath.Join(dir, "packaging", "schemas"), nil
		}
		if dir == filepath.Dir(dir) {
			err = errors.New("the working directory is in no module")
		}
	}
	return "", err
}

func validate(file string, document []byte) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return err
	}
	closed(schema)
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource(file, schema); err != nil {
		return err
	}
	compiled, err := compiler.Compile(file)
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		return err
	}
	return compiled.Validate(value)
}

// closed makes a schema refuse other properties: a schema allows them because fields may be added to
// a version, but the one in the tree has all fields of the programs in the tree.
func closed(schema any) {
	switch s := schema.(type) {
	case map[string]any:
		if _, ok := s["properties"].(map[string]any); ok && s["additionalProperties"] == nil {
			s["additionalProperties"] = false
		}
		for _, part := range s {
			closed(part)
		}
	case []any:
		for _, part := range s {
			closed(part)
		}
	}
}
