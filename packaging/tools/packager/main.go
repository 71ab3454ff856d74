// Program packager builds the packages that nfpm.yaml describes. The file has one
// document per package, in the syntax of nfpm.
//
//	packager [--config FILE] spec TEMPLATE                   print the spec of the source RPM
//	packager [--config FILE] root DIR                        install the contents of all packages below DIR
//	packager [--config FILE] rpm [--root DIR] OUT [NAME...]  build binary RPMs in the directory OUT
//
// Paths in nfpm.yaml are relative to its directory. The binary RPMs are built from
// what "root" has installed, by the same commands as in the %install section of the
// spec. A rebuild of the source RPM needs neither this program nor nfpm, and gives
// the same files.
//
// The environment variables that nfpm.yaml refers to must be set: GOARCH,
// RPM_VERSION and RPM_RELEASE. The spec also takes VERSION and SOURCE_DATE_EPOCH.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

var errUsage = errors.New("usage: packager [--config FILE] spec TEMPLATE | root DIR | rpm [--root DIR] OUT [NAME...]")

func run(args []string, stdout, stderr io.Writer) int {
	err := command(args, stdout)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintln(stderr, err)
		return 2
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintln(stderr, "packager:", line)
	}
	return 1
}

func command(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("packager", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	config := flags.String("config", "nfpm.yaml", "")
	if flags.Parse(args) != nil || flags.NArg() < 2 {
		return errUsage
	}
	tree := filepath.Dir(*config)
	switch verb, args := flags.Arg(0), flags.Args()[1:]; verb {
	case "spec", "root":
		if len(args) != 1 {
			return errUsage
		}
		packages, err := load(*config, os.Getenv)
		if err != nil {
			return err
		}
		if verb == "spec" {
			return writeSpec(stdout, args[0], packages)
		}
		return install(tree, args[0], packages)
	case "rpm":
		flags := flag.NewFlagSet("packager rpm", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		root := flags.String("root", "", "")
		if flags.Parse(args) != nil || flags.NArg() < 1 {
			return errUsage
		}
		var unset []string
		packages, err := load(*config, func(name string) string {
			value, ok := os.LookupEnv(name)
			if !ok && !strings.HasPrefix(name, "NFPM_") { // of nfpm, for signatures
				unset = append(unset, name)
			}
			return value
		})
		if err != nil {
			return err
		}
		if len(unset) > 0 {
			slices.Sort(unset)
			return fmt.Errorf("%s refers to variables that are not set: %s", *config, strings.Join(slices.Compact(unset), " "))
		}
		return buildRPMs(stdout, packages, tree, *root, flags.Arg(0), flags.Args()[1:])
	}
	return errUsage
}

// load reads the packages of a file, with the defaults of their contents filled in.
func load(path string, getenv func(string) string) ([]*nfpm.Info, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var packages []*nfpm.Info
	for i, document := range bytes.Split(text, []byte("\n---\n")) {
		config, err := nfpm.ParseWithEnvMapping(bytes.NewReader(document), getenv)
		if err != nil {
			return nil, fmt.Errorf("%s, document %d: %w", path, i+1, err)
		}
		info, err := config.Get("rpm")
		if err != nil {
			return nil, fmt.Errorf("%s, document %d: %w", path, i+1, err)
		}
		for _, c := range info.Contents {
			if _, ok := directives[c.Type]; !ok {
				return nil, fmt.Errorf("%s: %s has the unknown type %s", path, c.Destination, c.Type)
			}
			if c.FileInfo == nil {
				c.FileInfo = &files.ContentFileInfo{}
			}
			if c.FileInfo.Mode == 0 && c.Type != files.TypeDir { // nfpm uses the mode of the source, which comes from git
				c.FileInfo.Mode = 0o644
			}
			*c = *c.WithFileInfoDefaults(0, info.MTime)
		}
		packages = append(packages, info)
	}
	return packages, nil
}

// install installs the contents of the packages below a directory.
func install(tree, root string, packages []*nfpm.Info) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	var missing []error
	for _, p := range packages {
		for _, c := range p.Contents {
			if _, err := os.Stat(filepath.Join(tree, c.Source)); c.Source != "" && err != nil {
				missing = append(missing, fmt.Errorf("%s (installed as %s) is missing", c.Source, c.Destination))
			}
		}
	}
	if len(missing) > 0 {
		return errors.Join(missing...)
	}
	cmd := exec.Command("sh", "-euc", "umask 022\n"+installCommands(packages))
	cmd.Dir, cmd.Env = tree, append(os.Environ(), "RPM_BUILD_ROOT="+root)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("install the contents in %s: %w\n%s", root, err, bytes.TrimSpace(out))
	}
	return nil
}

// buildRPMs builds the packages with the given names, all without a name. It takes
// their contents from root, or from the sources in the tree if root is empty.
func buildRPMs(stdout io.Writer, packages []*nfpm.Info, tree, root, out string, names []string) error {
	packager, err := nfpm.Get("rpm")
	if err != nil {
		return err
	}
	for _, info := range packages {
		if len(names) > 0 && !slices.Contains(names, info.Name) {
			continue
		}
		for _, c := range info.Contents {
			if root != "" && c.Source != "" && c.Type != files.TypeRPMGhost {
				c.Source = filepath.Join(root, c.Destination)
			} else {
				c.Source = within(tree, c.Source)
			}
		}
		for _, script := range []*string{&info.Scripts.PreInstall, &info.Scripts.PostInstall, &info.Scripts.PreRemove, &info.Scripts.PostRemove} {
			*script = within(tree, *script)
		}
		file := filepath.Join(out, packager.ConventionalFileName(info))
		if err := build(packager, info, file); err != nil {
			return fmt.Errorf("build %s: %w", file, err)
		}
		fmt.Fprintln(stdout, file)
	}
	return nil
}

func build(packager nfpm.Packager, info *nfpm.Info, file string) error {
	var rpm bytes.Buffer
	if err := packager.Package(info, &rpm); err != nil {
		return err
	}
	return os.WriteFile(file, rpm.Bytes(), 0o644)
}

// within returns a path of nfpm.yaml relative to the working directory.
func within(tree, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(tree, path)
}
