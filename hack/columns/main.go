// Command columns finds lines that are too long to read: comments and pages of more than 100
// columns, and code of more than 120. Its arguments are files; make verify gives those of the
// repository. A line that is better whole is passed over: of a raw string, a table or a block of
// code, one string alone or beside its key, or without a space. It prints the lines, and ends with
// 1 where it found some.
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
	mostProse = 100
	mostCode  = 120
	// tabWidth is how wide editors show a tab.
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
			fmt.Printf("%s:%d: %d columns, at most %d\n", file, l.number, l.width, l.most)
			found = true
		}
	}
	if found {
		os.Exit(1)
	}
}

// line is a line that is too long. Lines count from 1.
type line struct{ number, width, most int }

// long returns the lines of a file that are too long. The kind of the file is in its name.
func long(file string, data []byte) []line {
	var most func(number int, text string) int
	switch {
	case generated.Match(data[:min(len(data), 200)]):
		return nil
	case filepath.Ext(file) == ".go":
		most = goLimits(data)
	case filepath.Ext(file) == ".md":
		most = pageLimits()
	default: // YAML, make, shell
		most = commentLimits("#")
	}
	var found []line
	for i, text := range strings.Split(string(data), "\n") {
		width := utf8.RuneCountInString(strings.ReplaceAll(text, "\t", strings.Repeat(" ", tabWidth)))
		if limit := most(i+1, text); limit > 0 && width > limit && breakable(text) {
			found = append(found, line{i + 1, width, limit})
		}
	}
	return found
}

// breakable reports whether text has a space between words, after the mark of a comment or a list,
// and is more than one string, such as the message that a test expects, or one beside its key.
func breakable(text string) bool {
	text = strings.TrimLeft(text, "\t /#-*")
	return strings.ContainsRune(text, ' ') && !oneString.MatchString(text)
}

// goLimits returns the limit of each line of a Go file. 0 stands for none: a line that begins or
// ends in a raw string.
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
			return mostProse
		}
		return mostCode
	}
}

// commentLimits bounds lines that hold a comment alone, which begins with mark.
func commentLimits(mark string) func(number int, text string) int {
	return func(_ int, text string) int {
		if strings.HasPrefix(strings.TrimSpace(text), mark) {
			return mostProse
		}
		return 0
	}
}

// pageLimits bounds the lines of a Markdown page outside of its tables and blocks of code.
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
		return mostProse
	}
}
