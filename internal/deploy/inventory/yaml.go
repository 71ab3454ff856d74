package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// The files are decoded with yaml.v3, not through JSON as Kubernetes does: a string stays
// unchanged, where JSON would have "false" for off, and errors have line numbers.

// maxFile is the maximum size of a file in bytes. Ten thousand nodes need less than 1 MiB.
const maxFile = 16 << 20

// readYAML returns the YAML documents of a file.
func readYAML(path string) (documents []*yaml.Node, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d MiB", path, maxFile>>20)
	}
	for d := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var n yaml.Node
		switch err := d.Decode(&n); {
		case errors.Is(err, io.EOF):
			return documents, nil
		case err != nil:
			return nil, syntaxError(path, err)
		case n.Kind == yaml.DocumentNode:
			documents = append(documents, n.Content[0])
		}
	}
}

// syntaxError puts the line number, with which errors of the decoder start, after the path.
func syntaxError(path string, err error) error {
	what := strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " ")
	if at, rest, ok := strings.Cut(strings.TrimPrefix(what, "line "), ": "); ok {
		if line, err := strconv.Atoi(at); err == nil {
			return fmt.Errorf("%s:%d: %s", path, line, rest)
		}
	}
	return fmt.Errorf("%s: %s", path, what)
}

// retired has the keys that only earlier installers used, by the type of their mapping,
// with the reason why they have no effect.
var retired = map[reflect.Type]map[string]string{
	reflect.TypeFor[Daemon]():          {"skipNnfNodeName": "no daemon takes the name of its rabbit"},
	reflect.TypeFor[product.Account](): {"token": "nnf-deploy sets the path of the token itself", "cert": "nnf-deploy sets the path of the CA itself"},
	reflect.TypeFor[Site](): {
		"master": "nothing is installed there", "workers": "nothing is installed there", "rabbits": "systemConfiguration lists the nodes",
		"ports": "they are in the SystemConfiguration", "overrides": "they apply only to the cluster",
	},
}

// strict decodes the nodes of one file. An unknown key is an error; a retired key is a
// warning.
type strict struct {
	path     string
	warnings []string
	checked  map[visit]bool
}

// visit is a node that has been checked against a type. It keeps the time bounded for a
// file with many aliases.
type visit struct {
	n *yaml.Node
	t reflect.Type
}

// decode checks a node, and decodes it into the value that into points to.
func (s *strict) decode(n *yaml.Node, into any) error {
	if err := s.check(n, reflect.TypeOf(into).Elem()); err != nil {
		return err
	}
	if err := n.Decode(into); err != nil {
		return syntaxError(s.path, err)
	}
	return nil
}

func (s *strict) errorf(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", s.path, n.Line, fmt.Sprintf(format, args...))
}

// check returns an error for the first part of a node that does not match the type.
func (s *strict) check(n *yaml.Node, t reflect.Type) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if s.checked[visit{n, t}] {
		return nil
	}
	if s.checked == nil {
		s.checked = map[visit]bool{}
	}
	s.checked[visit{n, t}] = true
	var wanted yaml.Kind
	switch t.Kind() {
	case reflect.Struct:
		wanted = yaml.MappingNode
	case reflect.Slice:
		wanted = yaml.SequenceNode
	case reflect.String, reflect.Int:
		wanted = yaml.ScalarNode
	}
	switch {
	case t == reflect.TypeFor[yaml.Node](), n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		return nil
	case wanted == 0:
		return s.free(n)
	case n.Kind != wanted:
		return s.errorf(n, "expected %s, found %s", kindNames[wanted], found(n))
	case t.Kind() == reflect.Int && n.ShortTag() != "!!int":
		return s.errorf(n, "expected a number, found %s", found(n))
	case t.Kind() == reflect.Slice:
		for _, item := range n.Content {
			if err := s.check(item, t.Elem()); err != nil {
				return err
			}
		}
	case t.Kind() == reflect.Struct:
		return s.mapping(n, func(key, value *yaml.Node) error { return s.field(key, value, t) })
	}
	return nil
}

var kindNames = map[yaml.Kind]string{yaml.MappingNode: "a mapping", yaml.SequenceNode: "a list", yaml.ScalarNode: "a string"}

// found describes a node in an error.
func found(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode {
		return text.Quote(n.Value)
	}
	return kindNames[n.Kind]
}

// field checks one key of a mapping that is decoded into a struct.
func (s *strict) field(key, value *yaml.Node, t reflect.Type) error {
	if key.ShortTag() == "!!merge" {
		if value.Kind != yaml.SequenceNode {
			return s.check(value, t)
		}
		return s.check(value, reflect.SliceOf(t))
	}
	var known []string
	for f := range t.Fields() {
		name := f.Tag.Get("yaml")
		if name == key.Value && key.Kind == yaml.ScalarNode {
			return s.check(value, f.Type)
		}
		known = append(known, name)
	}
	if why := retired[t][key.Value]; why != "" {
		s.warnings = append(s.warnings, fmt.Sprintf("%s:%d: %s has no effect: %s", s.path, key.Line, key.Value, why))
		return s.free(value)
	}
	return s.errorf(key, "unknown key %s%s", text.Quote(key.Value), text.DidYouMean(key.Value, known))
}

// mapping calls each for the keys of a mapping. Duplicate keys are an error.
func (s *strict) mapping(n *yaml.Node, each func(key, value *yaml.Node) error) error {
	seen := map[string]bool{}
	for pair := range slices.Chunk(n.Content, 2) {
		key, value := pair[0], pair[1]
		if key.Kind == yaml.ScalarNode && key.ShortTag() != "!!merge" {
			if seen[key.Value] {
				return s.errorf(key, "duplicate key %s", text.Quote(key.Value))
			}
			seen[key.Value] = true
		}
		if err := each(key, value); err != nil {
			return err
		}
	}
	return nil
}

// free checks a node of any form for duplicate keys. It does not follow aliases: their
// nodes are checked where they are defined.
func (s *strict) free(n *yaml.Node) error {
	if n.Kind == yaml.MappingNode {
		return s.mapping(n, func(_, value *yaml.Node) error { return s.free(value) })
	}
	for _, item := range n.Content {
		if err := s.free(item); err != nil {
			return err
		}
	}
	return nil
}

// kindOf returns the kind of a Kubernetes object, or "".
func (s *strict) kindOf(n *yaml.Node) (string, error) {
	if n.Kind != yaml.MappingNode && n.ShortTag() != "!!null" {
		return "", s.errorf(n, "expected a mapping, found %s", found(n))
	}
	return scalar(n, "kind"), nil
}

// scalar returns the value of a key of a mapping, or "".
func scalar(n *yaml.Node, key string) string {
	for pair := range slices.Chunk(n.Content, 2) {
		if pair[0].Value == key && pair[1].Kind == yaml.ScalarNode {
			return pair[1].Value
		}
	}
	return ""
}

// readList reads a YAML list of entries, alone or below a key. Retired keys are returned as
// warnings.
func readList[T any](path, key string) (list []T, warnings []string, err error) {
	documents, err := readYAML(path)
	if err != nil {
		return nil, nil, err
	}
	s := &strict{path: path}
	entries := new(yaml.Node) // of the first document
	if len(documents) > 0 {
		entries = documents[0]
	}
	if top := entries; top.Kind == yaml.MappingNode {
		err = s.mapping(top, func(k, value *yaml.Node) error {
			if k.Value != key {
				return s.errorf(k, "unknown key %s, expected %q", text.Quote(k.Value), key)
			}
			entries = value
			return nil
		})
	} else if top.Kind != yaml.SequenceNode {
		err = fmt.Errorf("%s: expected a list, alone or below %q", path, key+":")
	}
	if err == nil {
		err = s.decode(entries, &list)
	}
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%s: the list is empty", path)
	}
	if err != nil {
		return nil, nil, err
	}
	return list, s.warnings, nil
}
