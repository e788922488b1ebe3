// Package documents reads the objects in files of YAML or JSON, as kubectl does: several documents
// a file, lists, folders, standard input.
//
// It limits the size of a file, the number of objects, and the size to which the aliases of a
// document expand. It never fetches a URL and never renders a template.
package documents

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const (
	// maxFile is the maximum size of one file, in bytes.
	maxFile = 64 << 20
	// maxTotal is the maximum size of all files of one read, in bytes.
	maxTotal = 256 << 20
	// maxObjects is the maximum number of objects of one read.
	maxObjects = 100_000
	// maxFiles is the maximum number of files of one read.
	maxFiles = 10_000
)

// Stdin is the path that means standard input.
const Stdin = "-"

// Position says where an object was read.
type Position struct {
	// File is the path of the file, or Stdin.
	File string `json:"file"`
	// Document is the number of the document in the file, from 1.
	Document int `json:"document"`
}

// String returns the position for a message, such as "app.yaml, document 2".
func (p Position) String() string {
	file := p.File
	if file == Stdin {
		file = "standard input"
	}
	if p.Document == 0 {
		return file
	}
	return fmt.Sprintf("%s, document %d", file, p.Document)
}

// Object is one object of a file. The items of a list are objects of their own.
type Object struct {
	Position
	*unstructured.Unstructured
}

// Name returns the object for a message, such as `ImagePolicy "prod"` or `Pod "web/app"`.
func (o Object) Name() string {
	name := o.GetName()
	if name == "" {
		name = o.GetGenerateName()
	}
	if namespace := o.GetNamespace(); namespace != "" {
		name = namespace + "/" + name
	}
	return fmt.Sprintf("%.64s %.512q", o.GetKind(), name)
}

// Error is what is wrong with one file, document or object. Its text is one line.
type Error struct {
	Position
	// Object names the object, as Object.Name does. It is empty if the document is not an object.
	Object string
	// Err is what is wrong.
	Err error
}

// Error implements error.
func (e *Error) Error() string {
	text := e.String()
	if e.Object != "" {
		text += ": " + e.Object
	}
	return text + ": " + oneLine(e.Err.Error())
}

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// oneLine returns a text as one line.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Options say how to read.
type Options struct {
	// Recursive reads the folders within folders too, as kubectl's flag -R does.
	Recursive bool
	// Stdin is the stream that the path "-" means.
	Stdin io.Reader
	// Strict makes a repeated key an error, as kubectl's --validate=strict does. Without it, the
	// last value counts.
	Strict bool
}

// Set is the result of Read.
type Set struct {
	// Objects are in the order of the files, which are in the order of their names in a folder.
	Objects []Object
	// Files are the files that were read.
	Files []string
	// Unread are the folders within folders that were not read, because Recursive is not set.
	Unread []string
}

// Read reads files and folders. Of a folder it reads the files that end in .json, .yaml or .yml, as
// kubectl does. A path given by name may have any ending. The error joins an *Error for each thing
// that is wrong. The other objects are returned with it, so that one run reports all faults.
func Read(paths []string, o Options) (*Set, error) {
	r := &reader{Options: o, set: &Set{}, left: maxTotal}
	for _, path := range paths {
		r.path(path)
	}
	return r.set, errors.Join(r.errs...)
}

type reader struct {
	Options
	set  *Set
	left int64 // bytes that may still be read
	errs []error
}

func (r *reader) fail(p Position, object string, err error) {
	r.errs = append(r.errs, &Error{Position: p, Object: object, Err: err})
}

// path reads one path that the user gave.
func (r *reader) path(path string) {
	if path == Stdin {
		r.stdin()
		return
	}
	if strings.HasPrefix(path, "https://") || strings.HasPrefix(path, "http://") {
		r.fail(Position{File: path}, "", errors.New("a URL is not read; download the file first"))
		return
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.fail(Position{File: path}, "", errors.New("no such file or folder"))
	case err != nil:
		r.fail(Position{File: path}, "", cause(err))
	case info.IsDir():
		r.folder(path)
	default:
		r.file(path)
	}
}

// folder reads the files of a folder.
func (r *reader) folder(root string) {
	found := false
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			r.fail(Position{File: path}, "", cause(err))
			return nil
		case path == root:
			return nil
		case entry.IsDir() && !r.Recursive:
			r.set.Unread = append(r.set.Unread, path)
			return fs.SkipDir
		case !slices.Contains([]string{".json", ".yaml", ".yml"}, filepath.Ext(path)):
			return nil
		}
		info, err := os.Stat(path) // a mounted ConfigMap has links to files
		switch {
		case err != nil:
			r.fail(Position{File: path}, "", cause(err))
		case info.Mode().IsRegular():
			found = true
			r.file(path)
		}
		return nil
	})
	if err != nil {
		r.fail(Position{File: root}, "", cause(err))
	}
	if !found && len(r.errs) == 0 {
		hint := ""
		if len(r.set.Unread) > 0 {
			hint = "; folders within it are read with --recursive"
		}
		r.fail(Position{File: root}, "",
			fmt.Errorf("the folder has no file that ends in .json, .yaml or .yml%s", hint))
	}
}

// file reads one file.
func (r *reader) file(path string) {
	if len(r.set.Files) == maxFiles {
		r.fail(Position{File: path}, "", fmt.Errorf("more than %d files", maxFiles))
	}
	if len(r.set.Files) >= maxFiles {
		return
	}
	r.set.Files = append(r.set.Files, path)
	f, err := os.Open(path) //nolint:gosec // the user names the file
	if err != nil {
		r.fail(Position{File: path}, "", cause(err))
		return
	}
	defer func() { _ = f.Close() }()
	r.stream(path, f)
}

func (r *reader) stdin() {
	if r.Stdin == nil || slices.Contains(r.set.Files, Stdin) {
		r.fail(Position{File: Stdin}, "", errors.New("can be read only once"))
		return
	}
	r.set.Files = append(r.set.Files, Stdin)
	r.stream(Stdin, r.Stdin)
}

// stream reads the objects of one stream.
func (r *reader) stream(file string, in io.Reader) {
	limit := min(maxFile, r.left)
	content, err := io.ReadAll(io.LimitReader(in, limit+1))
	r.left -= int64(len(content))
	switch {
	case err != nil:
		r.fail(Position{File: file}, "", cause(err))
		return
	case int64(len(content)) > limit:
		r.left = 0
		r.fail(Position{File: file}, "", fmt.Errorf("too large: a file may have %d MiB, and all files %d MiB",
			maxFile>>20, maxTotal>>20))
		return
	}
	n := len(r.set.Objects)
	r.split(file, content)
	if len(r.set.Objects) == n && len(r.errs) == 0 && file == Stdin {
		r.fail(Position{File: file}, "", errors.New("no object in it"))
	}
}

// add adds one object, unless there are too many.
func (r *reader) add(o Object) {
	switch n := len(r.set.Objects); {
	case n < maxObjects:
		r.set.Objects = append(r.set.Objects, o)
	case r.left > 0:
		r.left = 0 // report it once, and read no further file
		r.fail(o.Position, "", fmt.Errorf("more than %d objects", maxObjects))
	}
}

// cause returns the error without the path, which the position names.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
