package node

import (
	"errors"
	"io/fs"
	"os"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// MissingTargets lists what MakeDirectory or MakeFile would have to make for the
// mount target path, from the top. A caller that must survive a crash writes it
// down first. It is empty when nothing is missing, and when something is in the way
// that the Make functions refuse: they say what.
func (n *Node) MissingTargets(path string) []string {
	missing, err := n.carryOut(request{Op: opMissing, Path: path})
	if err != nil {
		n.log().Debug("cannot find out which part of a mount target is missing", "path", path, "error", err)
	}
	return missing
}

func (n *Node) missingTargets(path string) []string {
	if safepath.CheckPath(path) != nil {
		return nil
	}
	var missing []string
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		part := path[:i]
		if len(missing) > 0 {
			missing = append(missing, part)
			continue
		}
		st, err := os.Lstat(part)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, part)
		case err != nil || !st.IsDir():
			return nil
		}
	}
	return missing
}
