package manual

import (
	"fmt"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/config"
)

// settings are the tables of a program's settings, one for each section.
func settings(table *config.Table) string {
	var b strings.Builder
	for _, section := range table.Sections {
		name := "`[" + section.Name + "]` "
		if section.Name == "" {
			name = ""
		}
		fmt.Fprintf(&b, "\n**%s%s**\n\n| key | default | flag | environment | meaning |\n| --- | --- | --- | --- | --- |\n", name, section.Help)
		for i := range table.Settings {
			s := &table.Settings[i]
			where, key, dotted := strings.Cut(s.Key, ".")
			if !dotted {
				where, key = "", s.Key
			}
			if where != section.Name {
				continue
			}
			var env []string
			for _, e := range s.Env {
				env = append(env, code(e.Name))
			}
			help := s.Help
			if len(s.Values) > 0 {
				help += " One of: " + strings.Join(s.Values, ", ") + "."
			}
			if s.Reload {
				help += " Takes effect on reload."
			}
			flag := ""
			if s.Flag != "" {
				flag = code("--" + s.Flag)
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", code(key), code(s.Default), flag, strings.Join(env, ", "), strings.ReplaceAll(help, "|", `\|`))
		}
	}
	b.WriteString("\n")
	return b.String()
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}
