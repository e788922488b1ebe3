// Command columns prints the lines of files that are too long: more than 100 columns in comments
// and Markdown, more than 120 in code. make verify runs it on the files of the repository. It
// ignores lines that cannot be broken well: raw strings, tables, blocks of code, a string alone or
// with its key, and lines without a space. Its exit status is 1 if it prints a line.
package main

import (
	"fmt"
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"
)

const (
	maxProse = 100
	maxCode  = 120
	// tabWidth is the width of a tab.
	tabWidth = 4
)

var (
	generated = regexp.MustCompile(`^(//go:build .*\s+)?(// Code generated|<!-- Made from) `)
	oneString = regexp.MustCompile(`^"(\\.|[^"\\])*"(: +"(\\.|[^"\\])*")?[,:+){ ]*$`)
)

func main() {
	found := false
	for _, file := range os.Args[1:] {
		data, err := os.ReadFile(file)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		for _, l := range long(file, data) {
			fmt.Printf("%s:%d: %d columns, at most %d\n", file, l.number, l.width, l.limit)
			found = true
		}
	}
	if found {
		os.Exit(1)
	}
}

// line is a line that is too long. Numbers begin at 1.
type line struct{ number, width, limit int }

// long returns the lines of a file that are too long. The file's extension decides the limits.
func long(file string, data []byte) []line {
	var limitOf func(number int, text string) int
	switch {
	case generated.Match(data[:min(len(data), 200)]):
		return nil
	case filepath.Ext(file) == ".go":
		limitOf = goLimits(data)
	case filepath.Ext(file) == ".md":
		limitOf = pageLimits()
	default: // YAML, make, shell
		limitOf = commentLimits("#")
	}
	var found []line
	for i, text := range strings.Split(string(data), "\n") {
		width := utf8.RuneCountInString(strings.ReplaceAll(text, "\t", strings.Repeat(" ", tabWidth)))
		if limit := limitOf(i+1, text); limit > 0 && width > limit && breakable(text) {
			found = append(found, line{i + 1, width, limit})
		}
	}
	return found
}

// breakable reports whether a line can be broken. It cannot if it has no space after the marker of
// a comment or a list, or if it is a single string, alone or with its key.
func breakable(text string) bool {
	text = strings.TrimLeft(text, "\t /#-*")
	return strings.ContainsRune(text, ' ') && !oneString.MatchString(text)
}

// goLimits returns a function for the limits of the lines of a Go file. 0 means no limit, as for
// lines of raw strings and directives.
func goLimits(source []byte) func(number int, text string) int {
	raw := make(map[int]bool)
	set := token.NewFileSet()
	file := set.AddFile("", set.Base(), len(source))
	var s scanner.Scanner
	s.Init(file, source, nil, 0)
	for {
		at, kind, literal := s.Scan()
		if kind == token.EOF {
			break
		}
		if kind == token.STRING && strings.HasPrefix(literal, "`") {
			first := file.Line(at)
			for n := range strings.Count(literal, "\n") + 1 {
				raw[first+n] = true
			}
		}
	}
	prose := commentLimits("//")
	return func(number int, text string) int {
		switch comment := strings.TrimSpace(text); {
		case raw[number], strings.HasPrefix(comment, "//go:"), strings.HasPrefix(comment, "// +"),
			strings.HasPrefix(comment, "//+"):
			return 0
		case prose(number, text) > 0:
			return maxProse
		}
		return maxCode
	}
}

// commentLimits returns a function that limits lines with nothing but a comment, which begins with
// mark.
func commentLimits(mark string) func(number int, text string) int {
	return func(_ int, text string) int {
		if strings.HasPrefix(strings.TrimSpace(text), mark) {
			return maxProse
		}
		return 0
	}
}

// pageLimits returns a function that limits the lines of a Markdown page outside tables and blocks
// of code.
func pageLimits() func(number int, text string) int {
	fenced := false
	return func(_ int, text string) int {
		start := strings.TrimSpace(text)
		if strings.HasPrefix(start, "```") {
			fenced = !fenced
		}
		if fenced || strings.HasPrefix(start, "|") || strings.HasPrefix(start, "<") {
			return 0
		}
		return maxProse
	}
}
