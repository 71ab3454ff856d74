// Command generate writes what the packages bring besides binaries, units and
// configuration, and what the programs' own tables know: manual pages, bash
// completion, the journal's message catalogue, and the tables of records in
// docs/. It is run by make generate, from the top of the tree.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("generate", flag.ContinueOnError)
	flags.SetOutput(stderr)
	root := flags.String("root", ".", "top of the tree")
	check := flags.Bool("check", false, "write nothing, fail when something would change")
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
		fmt.Fprintln(stderr, "generate: these files are not what the code says: make generate")
		return 1
	}
	return 0
}

// generate returns the files that differ from what the code says, and writes
// them.
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
