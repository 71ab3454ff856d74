// Package packaging is for tests. It reads nfpm.yaml, the list of what the RPMs contain, and
// makes signed dnf repositories. Its own tests need neither a compiler nor an RPM tool;
// internal/e2e/packages and internal/e2e/machine test the packages themselves, which
// packaging/tools/packager builds.
package packaging

import (
	"fmt"
	"io/fs"
	"os"
	"strings"

	"sigs.k8s.io/yaml"
)

// Package is a document of nfpm.yaml.
type Package struct {
	Name     string
	Contents []Content
	Scripts  map[string]string // file of each scriptlet, by nfpm's name for it
}

// Content is what a package installs at a path.
type Content struct {
	Source      string `json:"src"` // empty for a directory
	Destination string `json:"dst"`
	Type        string // as in nfpm: empty for a file
	FileInfo    struct {
		Mode         fs.FileMode
		Owner, Group string
	} `json:"file_info"`
}

// Packages reads nfpm.yaml, with the defaults that it states filled in.
func Packages(path string) ([]Package, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []Package
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var p Package
		if err := yaml.Unmarshal([]byte(document), &p); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for i := range p.Contents {
			c := &p.Contents[i]
			if c.FileInfo.Owner == "" {
				c.FileInfo.Owner = "root"
			}
			if c.FileInfo.Group == "" {
				c.FileInfo.Group = "root"
			}
			switch {
			case c.FileInfo.Mode != 0:
			case c.Type == "dir":
				c.FileInfo.Mode = 0o755
			default:
				c.FileInfo.Mode = 0o644
			}
		}
		list = append(list, p)
	}
	return list, nil
}
