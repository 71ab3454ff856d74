// Program sbom prints what a Go program is made of, as a CycloneDX document: its
// modules with versions and checksums, and the Go release. All of it is in the
// program itself; the checksums of a program that was built from vendor/ are in
// go.sum. The same program gives the same bytes.
//
//	sbom PROGRAM [GO.SUM] >PROGRAM.cdx.json
package main

import (
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) < 1 || len(args) > 2 {
		fmt.Fprintln(stderr, "usage: sbom PROGRAM [GO.SUM]")
		return 2
	}
	gosum := "go.sum"
	if len(args) == 2 {
		gosum = args[1]
	}
	if err := write(stdout, args[0], gosum); err != nil {
		fmt.Fprintln(stderr, "sbom:", err)
		return 1
	}
	return 0
}

func write(w io.Writer, program, gosum string) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	sums, err := os.Open(gosum)
	if err != nil {
		return err
	}
	defer sums.Close()
	known, err := readSums(sums)
	if err != nil {
		return fmt.Errorf("%s: %w", gosum, err)
	}
	doc, err := document(filepath.Base(program), info, known)
	if err != nil {
		return err
	}
	_, err = w.Write(doc)
	return err
}
