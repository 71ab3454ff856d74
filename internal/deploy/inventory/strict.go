package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v2"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// The YAML reader is version 2 itself, not the detour through JSON that Kubernetes
// makes: a text stays as it was written, where that would turn "off" into "false",
// and errors have lines.

// maxFile bounds what is read: ten thousand nodes need less than one of it.
const maxFile = 16 << 20

func readFile(path string) ([]byte, error) {
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
	return bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), nil
}

// documents are those of a file, each with empty lines in the place of what stands
// before it, so that errors have the lines of the file.
func documents(data []byte) (list [][]byte) {
	var now []byte
	lines := 0
	for l := range bytes.Lines(data) {
		lines++
		if bytes.HasPrefix(l, []byte("---")) && len(bytes.TrimSpace(l)) == 3 {
			list = append(list, now)
			now = bytes.Repeat([]byte("\n"), lines)
			continue
		}
		now = append(now, l...)
	}
	return append(list, now)
}

var (
	unknownField = regexp.MustCompile(`^line (\d+): field (.+) not found in type (.*)$`)
	twice        = regexp.MustCompile(`^line (\d+): (?:field|key) "?([^" ]+)"? already set in `)
	atLine       = regexp.MustCompile(`^line (\d+): (.*)`)
)

// explain turns an error of the YAML reader into a line for people: the place, and
// for an unknown key the nearest one that is known.
func explain(path string, err error, known []string) error {
	line := strings.TrimPrefix(err.Error(), "yaml: ")
	if all := (*yaml.TypeError)(nil); errors.As(err, &all) && len(all.Errors) > 0 {
		line = all.Errors[0]
	}
	if m := unknownField.FindStringSubmatch(line); m != nil {
		return fmt.Errorf("%s:%s: unknown key %q%s", path, m[1], m[2], text.DidYouMean(m[2], known))
	}
	if m := twice.FindStringSubmatch(line); m != nil {
		return fmt.Errorf("%s:%s: key %q is there twice", path, m[1], m[2])
	}
	line, _, _ = strings.Cut(strings.Join(strings.Fields(line), " "), " into ") // a name of ours
	if what, ok := strings.CutPrefix(line[strings.IndexByte(line, ':')+1:], " cannot unmarshal "); ok {
		what = strings.NewReplacer("!!seq", "a list", "!!map", "a mapping", "!!str ", "", "!!int ", "").Replace(what)
		line = line[:strings.IndexByte(line, ':')] + ": " + what + " cannot stand here"
	}
	if m := atLine.FindStringSubmatch(line); m != nil {
		return fmt.Errorf("%s:%s: %s", path, m[1], m[2])
	}
	return fmt.Errorf("%s: %s", path, line)
}

// retired are keys that files for earlier installers have, by the type of the
// entry, with the reason why they have no effect.
var retired = map[string]map[string]string{
	"inventory.Daemon": {"skipNnfNodeName": "no daemon is given the name of its rabbit"},
	"product.Account":  {"token": "nnf-deploy sets the path of the token itself", "cert": "nnf-deploy sets the path of the CA itself"},
	"inventory.Site": {
		"master": "nothing is installed there", "workers": "nothing is installed there", "rabbits": "systemConfiguration names the nodes",
		"ports": "they are in the SystemConfiguration", "overrides": "they are for the cluster's side",
	},
}

// strictly reads YAML. A key that is not known is an error, but for retired ones:
// these are returned as warnings.
func strictly(path string, data []byte, into any, known []string) (warnings []string, err error) {
	err = yaml.UnmarshalStrict(data, into)
	all := (*yaml.TypeError)(nil)
	if !errors.As(err, &all) {
		if err != nil {
			err = explain(path, err, known)
		}
		return nil, err
	}
	var errs []string
	for _, text := range all.Errors {
		if m := unknownField.FindStringSubmatch(text); m != nil && retired[m[3]][m[2]] != "" {
			warnings = append(warnings, fmt.Sprintf("%s:%s: %s has no effect: %s", path, m[1], m[2], retired[m[3]][m[2]]))
			continue
		}
		errs = append(errs, text)
	}
	if len(errs) > 0 {
		return nil, explain(path, &yaml.TypeError{Errors: errs}, known)
	}
	return warnings, nil
}

// readList reads a YAML list of entries, alone or below a key. Retired keys are
// returned as warnings.
func readList[T any](path, key string, known []string) (list []T, warnings []string, err error) {
	data, err := readFile(path)
	if err != nil {
		return nil, nil, err
	}
	var shape any
	if err := yaml.Unmarshal(data, &shape); err != nil {
		return nil, nil, explain(path, err, nil)
	}
	switch top := shape.(type) {
	case []any:
		warnings, err = strictly(path, data, &list, known)
	case map[any]any:
		for k := range top {
			if k != key {
				name := fmt.Sprint(k)
				return nil, nil, fmt.Errorf("%s: unknown key %q%s; known is %q", path, name, text.DidYouMean(name, []string{key}), key)
			}
		}
		below := map[string][]T{}
		warnings, err = strictly(path, data, &below, known)
		list = below[key]
	default:
		return nil, nil, fmt.Errorf("%s: neither a list nor %q with one", path, key+":")
	}
	if err != nil {
		return nil, nil, err
	}
	if len(list) == 0 {
		return nil, nil, fmt.Errorf("%s: the list is empty", path)
	}
	return list, warnings, nil
}
