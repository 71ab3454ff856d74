// Command generate writes the files that are made from the tables of the programs: manual
// pages, completion for shells, the message catalogue of the journal, the default
// configuration files, and the tables in docs/reference. make generate runs it at the top of
// the tree.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/compute-daemons/compute-daemons/internal/cli/clientmountd"
	deploy "github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/cli/dmctl"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
	"github.com/compute-daemons/compute-daemons/packaging/generate/catalog"
	"github.com/compute-daemons/compute-daemons/packaging/generate/completion"
	"github.com/compute-daemons/compute-daemons/packaging/generate/man"
	"github.com/compute-daemons/compute-daemons/packaging/generate/reference"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("generate", flag.ContinueOnError)
	flags.SetOutput(stderr)
	root := flags.String("root", ".", "top of the tree")
	check := flags.Bool("check", false, "write nothing; fail if a file is not up to date")
	switch err := flags.Parse(args); {
	case err == flag.ErrHelp:
		return 0
	case err != nil:
		return 2
	}
	changed, err := generate(*root, !*check)
	for _, path := range changed {
		fmt.Fprintln(stdout, path)
	}
	switch {
	case err != nil:
		fmt.Fprintln(stderr, "generate:", err)
		return 1
	case *check && len(changed) > 0:
		fmt.Fprintln(stderr, "generate: these files are not up to date: run make generate")
		return 1
	}
	return 0
}

// generate returns the files that are not up to date, and updates them if write is true.
func generate(root string, write bool) (changed []string, err error) {
	files, err := outputs(root)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		path := filepath.Join(root, f.path)
		if old, err := os.ReadFile(path); err == nil && string(old) == f.text {
			continue
		}
		changed = append(changed, f.path)
		if !write {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return changed, err
		}
		if err := os.WriteFile(path, []byte(f.text), 0o644); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// output is a generated file.
type output struct{ path, text string }

// outputs returns all generated files, with paths below root.
func outputs(root string) (files []output, err error) {
	kinds, err := catalog.All()
	if err != nil {
		return nil, err
	}
	files = append(files, output{"packaging/catalog/compute-daemons.catalog", catalog.Write(kinds)})

	pages, err := man.Pages()
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		files = append(files, output{"packaging/man/" + name, pages[name]})
	}

	files = append(files,
		output{"packaging/completion/" + dmctl.Name, dmctl.Program.Completion("bash")},
		output{"packaging/completion/zsh/_" + dmctl.Name, dmctl.Program.Completion("zsh")},
		output{"packaging/completion/fish/" + dmctl.Name + ".fish", dmctl.Program.Completion("fish")},
		output{"packaging/completion/" + deploy.Name, deploy.Program.Completion("bash")},
		output{"packaging/completion/zsh/_" + deploy.Name, deploy.Program.Completion("zsh")},
		output{"packaging/completion/fish/" + deploy.Name + ".fish", deploy.Program.Completion("fish")})
	for _, table := range []*config.Table{clientmountd.Program().Table(), new(server.Configuration).Table()} {
		files = append(files,
			output{"packaging/completion/" + table.Program, completion.Daemon(table, reference.ToolNames(table.Program))},
			output{"etc/" + table.Program + "/config.toml", config.DefaultFile(table)})
	}

	grammars, err := commandLine()
	if err != nil {
		return nil, err
	}
	files = append(files, output{"internal/deploy/identities/commandline.json", grammars})

	schemas, err := reference.Schemas()
	if err != nil {
		return nil, err
	}
	for _, path := range slices.Sorted(maps.Keys(schemas)) {
		files = append(files, output{path, schemas[path]})
	}

	parts, err := reference.Pages()
	if err != nil {
		return nil, err
	}
	for _, path := range slices.Sorted(maps.Keys(parts)) {
		data, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return nil, err
		}
		text, err := reference.Insert(path, string(data), parts[path])
		if err != nil {
			return nil, err
		}
		files = append(files, output{path, text})
	}
	return files, nil
}

// commandLine returns the grammars of the texts that the rabbit puts into a command line, for the
// policies that nnf-deploy contains. It does not link the package that defines them.
func commandLine() (string, error) {
	options, err := datamovement.NewOptions(datamovement.OptionsList, nil, nil)
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err = encoder.Encode(options.Grammars())
	return text.String(), err
}
