package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/internal/preview"
	"github.com/countersign-dev/countersign/internal/text"
)

// printVerified prints a report in the format of -o.
func (e *environment) printVerified(o *output, r preview.Report) error {
	switch o.format {
	case "text":
		return printText(e.Out, r)
	case "junit":
		return printJUnit(e.Out, r)
	}
	return o.encode(e.Out, r)
}

// verdictText returns a verdict as text output has it.
func verdictText(verdict string) string {
	switch verdict {
	case preview.VerdictAdmitted:
		return "admitted"
	case preview.VerdictDenied:
		return "denied"
	}
	return "could not check"
}

// printText prints one line an image, followed by the reasons.
func printText(w io.Writer, r preview.Report) error {
	var b strings.Builder
	for i := range r.Workloads {
		one := &r.Workloads[i]
		if one.Kind != "" {
			fmt.Fprintf(&b, "%s %s/%s (%s)\n", text.Line(one.Kind), one.Namespace, text.Line(one.Name),
				text.Line(one.Source))
		}
		for n := range one.Images {
			printImage(&b, &one.Images[n], one.Reason != "")
		}
		if one.Reason != "" {
			fmt.Fprintf(&b, "%-15s    %s\n", "", text.Line(one.Reason))
		}
		if one.Kind != "" {
			b.WriteByte('\n')
		}
	}
	if len(r.Workloads) == 1 && r.Workloads[0].Kind == "" {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%d admitted, %d denied, %d could not be checked\n", r.Summary.Admitted, r.Summary.Denied,
		r.Summary.CouldNotCheck)
	_, err := io.WriteString(w, b.String())
	return err
}

// printImage prints an image. explained says that the reason follows.
func printImage(b *strings.Builder, i *preview.ImageReport, explained bool) {
	fmt.Fprintf(b, "%-15s  %s\n", verdictText(i.Verdict), text.Line(i.Image))
	reasons := slices.Concat(i.Warnings, i.Audits)
	switch {
	case i.Message != "":
		reasons = append([]string{i.Message}, reasons...)
	case i.Verdict == preview.VerdictAdmitted && !explained:
		reasons = append([]string{admittedBy(i)}, reasons...)
	}
	for _, reason := range reasons {
		fmt.Fprintf(b, "%-15s    %s\n", "", text.Line(reason))
	}
}

// admittedBy returns why an image is admitted.
func admittedBy(i *preview.ImageReport) string {
	var met []string
	for _, p := range i.Policies {
		if p.Verdict == preview.VerdictAdmitted {
			met = append(met, fmt.Sprintf("%q", p.Name))
		}
	}
	switch {
	case len(met) == 0 && len(i.Policies) == 0:
		return "no ImagePolicy covers it"
	case len(met) == 0:
		return "no ImagePolicy in mode Enforce denies it"
	}
	by := "as ImagePolicy " + strings.Join(met, ", ") + " requires"
	if i.Digest == "" {
		return by
	}
	return fmt.Sprintf("%s, %s", i.Digest, by)
}

// The elements of a JUnit report that test reports of pipelines read.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name      string       `xml:"name,attr"`
		ClassName string       `xml:"classname,attr"`
		Failure   *junitResult `xml:"failure,omitempty"`
		Error     *junitResult `xml:"error,omitempty"`
		Output    string       `xml:"system-out,omitempty"`
	}
	junitResult struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
	}
)

// printJUnit prints a test suite a workload, and a test case an image: a failure where it is
// denied, and an error where it could not be checked.
func printJUnit(w io.Writer, r preview.Report) error {
	all := junitSuites{Name: "kubectl countersign verify"}
	for i := range r.Workloads {
		suite := suiteOf(&r.Workloads[i])
		all.Tests, all.Failures = all.Tests+suite.Tests, all.Failures+suite.Failures
		all.Errors += suite.Errors
		all.Suites = append(all.Suites, suite)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func suiteOf(w *preview.WorkloadReport) junitSuite {
	name := strings.TrimSpace(fmt.Sprintf("%s %s/%s", w.Kind, w.Namespace, w.Name))
	if w.Kind == "" {
		name = "images in namespace " + w.Namespace
	}
	s := junitSuite{Name: name}
	for n := range w.Images {
		i := &w.Images[n]
		c := junitCase{
			Name: i.Image, ClassName: name, Output: strings.Join(slices.Concat(i.Warnings, i.Audits), "\n"),
		}
		result := &junitResult{Message: i.Message, Type: i.Verdict}
		if result.Message == "" {
			result.Message = w.Reason
		}
		switch {
		case i.Verdict == preview.VerdictAdmitted, w.Verdict == preview.VerdictAdmitted:
			if w.Reason != "" {
				c.Output = strings.TrimSpace(w.Reason + "\n" + i.Message + "\n" + c.Output)
			}
		case i.Verdict == preview.VerdictDenied:
			c.Failure, s.Failures = result, s.Failures+1
		default:
			c.Error, s.Errors = result, s.Errors+1
		}
		s.Cases = append(s.Cases, c)
		s.Tests++
	}
	return s
}
