package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/files"
)

// directives maps the types of contents that both build methods support to their
// directives in the %files section.
var directives = map[string]string{
	"":                        "",
	files.TypeFile:            "",
	files.TypeDir:             "%dir ",
	files.TypeConfigNoReplace: "%config(noreplace) ",
	files.TypeRPMDoc:          "%doc ",
	files.TypeRPMLicense:      "%license ",
	files.TypeRPMGhost:        "%ghost ",
}

// writeSpec executes the template of the spec.
func writeSpec(w io.Writer, file string, packages []*nfpm.Info) error {
	spec, err := template.New(filepath.Base(file)).Funcs(template.FuncMap{
		"env":        requiredEnv,
		"install":    buildCommands,
		"files":      fileList,
		"scriptlets": scriptlets,
	}).ParseFiles(file)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := spec.Execute(&b, packages); err != nil {
		return err
	}
	_, err = w.Write(b.Bytes())
	return err
}

func requiredEnv(name string) (string, error) {
	if value := os.Getenv(name); value != "" {
		return value, nil
	}
	return "", fmt.Errorf("the variable %s is not set", name)
}

// buildCommands returns installCommands with those for %ghost files, which rpmbuild wants to see.
func buildCommands(packages []*nfpm.Info) string {
	commands := installCommands(packages)
	for _, p := range packages {
		for _, c := range p.Contents {
			if c.Type == files.TypeRPMGhost {
				commands += fmt.Sprintf("install -D -m %04o /dev/null \"$RPM_BUILD_ROOT\"%s\n", c.FileInfo.Mode, c.Destination)
			}
		}
	}
	return commands
}

// installCommands returns shell commands that install the contents of the packages
// below $RPM_BUILD_ROOT. They run in the source tree.
func installCommands(packages []*nfpm.Info) string {
	var b strings.Builder
	for _, p := range packages {
		for _, c := range p.Contents {
			mode, to := fmt.Sprintf("%04o", c.FileInfo.Mode), `"$RPM_BUILD_ROOT"`+c.Destination
			switch {
			case c.Type == files.TypeRPMGhost:
			case c.Type == files.TypeDir:
				fmt.Fprintln(&b, "install -d -m", mode, to)
			case compressed(c):
				to = strings.TrimSuffix(to, ".gz")
				fmt.Fprintln(&b, "install -D -m", mode, c.Source, to)
				fmt.Fprintln(&b, "gzip -9nf", to)
			case path.Ext(c.Source) == ".catalog":
				fmt.Fprintln(&b, "install -D -m", mode, "/dev/null", to)
				fmt.Fprintln(&b, "packaging/catalog.sh", p.Name, "<"+c.Source, ">"+to)
			default:
				fmt.Fprintln(&b, "install -D -m", mode, c.Source, to)
			}
		}
	}
	return b.String()
}

func compressed(c *files.Content) bool {
	return path.Ext(c.Destination) == ".gz" && path.Ext(c.Source) != ".gz"
}

// fileList returns the %files section of a package.
func fileList(p *nfpm.Info) string {
	var b strings.Builder
	for _, c := range p.Contents {
		fmt.Fprintf(&b, "%%attr(%04o,%s,%s) %s%s\n", c.FileInfo.Mode, c.FileInfo.Owner, c.FileInfo.Group, directives[c.Type], c.Destination)
	}
	return b.String()
}

// scriptlets returns the scriptlets of a package. rpmbuild reads them from the same
// files as nfpm.
func scriptlets(p *nfpm.Info) string {
	var b strings.Builder
	for _, s := range []struct{ section, file string }{
		{"pre", p.Scripts.PreInstall}, {"post", p.Scripts.PostInstall}, {"preun", p.Scripts.PreRemove}, {"postun", p.Scripts.PostRemove},
	} {
		if s.file != "" {
			fmt.Fprintf(&b, "%%%s -n %s -f %s\n", s.section, p.Name, s.file)
		}
	}
	return b.String()
}
