package plan

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

const (
	maxPath = 4095 // PATH_MAX without the terminating zero
	maxName = 255  // NAME_MAX

	pathLengthRule = "at most 4095 bytes are allowed"
)

// ErrOutsideRoots is in the chain of the error for a mount path that the site's
// Options.Roots do not allow.
var ErrOutsideRoots = errors.New("outside mount.roots")

// checkPath refuses a mount path that is dangerous or that a shell line could
// take for something else, and returns it clean. Symbolic links are not known
// here; whoever makes the target must not follow them.
func checkPath(field, p string, roots []string) (string, error) {
	switch {
	case p == "":
		return "", refused(field, p, "it is empty")
	case len(p) > maxPath:
		return "", refused(field, p, pathLengthRule)
	case p[0] != '/':
		return "", refused(field, p, "it must be absolute")
	}
	if i := strings.IndexByte(p, '$'); i >= 0 {
		return "", refused(field, p, "variable "+variableName(p[i:])+" is not known here")
	}
	if !safepath.MountPathText(p) {
		return "", refused(field, p, safepath.MountPathRule)
	}
	for name := range strings.SplitSeq(p, "/") {
		switch {
		case name == "." || name == "..":
			return "", refused(field, p, "it must not contain . or .. as a name")
		case len(name) > maxName:
			return "", refused(field, p, "at most 255 bytes are allowed in one name")
		}
	}

	p = path.Clean(p)
	if reason := safepath.DenyMount(p); reason != "" {
		return "", refused(field, p, reason)
	}
	inside := func(root string) bool { return safepath.Below(p, path.Clean(root)) }
	if len(roots) > 0 && !slices.ContainsFunc(roots, inside) {
		return "", dws.WrapError(dws.Fatal, "", fmt.Errorf("%s %s is refused: it lies %w, which allows mounts below %s only",
			field, quote(p), ErrOutsideRoots, strings.Join(roots, ", ")))
	}
	return p, nil
}
