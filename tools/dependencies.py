"""What the outputs of a chapter depend on: all that it reads, and little else.

Its own code cells; the modules of this checkout that it imports, directly or through others; the records of
the experiments that those modules define; its profiles; the installed versions of the packages that all of
this imports. What cannot be told from the code counts as a whole: all records for a chapter that names the
folder ``results`` itself, the whole package for a module that imports by a computed name.
"""

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import sys
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

KERNEL = "ipykernel"  # turns values and figures into outputs, whatever a chapter imports


def results_folder(root):
    """Return the folder of records that the notebooks of `root` read."""
    return Path(os.environ.get("MEMCOMP_RESULTS") or root / "results")


class Dependencies:
    """The dependencies of the chapters of one checkout, as the files are now.

    Parameters
    ----------
    root : Path
        The checkout.
    """

    def __init__(self, root):
        self.root = Path(root)
        self.results = results_folder(self.root)
        self._files, self._modules, self._records = {}, {}, {}

    def of(self, cells, path):
        """Return a text for each thing that the outputs of a notebook depend on, by its name.

        Parameters
        ----------
        cells : list of nbformat.NotebookNode
            Its code cells.
        path : Path
            The notebook; its profiles have the same name.

        Returns
        -------
        dict of str
            Two equal ones mean equal outputs, as far as a chapter computes the same each time.
        """
        own = Code.of_cells([cell.source for cell in cells], self.root)
        modules = self.modules(own)
        every = [own, *(self._code(module) for module in modules)]
        sources = [[cell.source, sorted(cell.metadata.get("tags", []))] for cell in cells]
        found = {"its code": digest(json.dumps(sources).encode()), "Python": platform.python_version()}
        found |= {self._name(module): self._file(module) for module in modules}
        found |= {f"${name}": os.environ.get(name, "") for code in every for name in code.variables}
        folders = {part for part in own.paths if part in ("results", "profiles")}
        names = self._experiments() if "results" in folders else set()
        for name in names.union(*(code.experiments for code in every)):
            found[f"records of {name}"] = self._records_of(name)
        pattern = "*/*.yaml" if "profiles" in folders else f"*/{path.stem}.yaml"
        for profile in sorted((self.root / "profiles").glob(pattern)):
            found[self._name(profile)] = self._file(profile)
        outside = {name for code in every for name in code.outside}
        return found | installed(frozenset(outside) - sys.stdlib_module_names)

    def modules(self, code):
        """Return the files of the checkout that a piece of code imports, also through each other."""
        found, todo = set(), set(code.inside)
        while todo:
            module = todo.pop()
            found.add(module)
            todo |= self._code(module).inside - found
        data = [self._data(module.parent) for module in found if module.name == "__init__.py"]
        return sorted(found.union(*data))

    def _data(self, package):
        """Return what lies in a package besides modules: any of its modules may read it."""
        files = (path for path in package.rglob("*") if path.is_file() and path.suffix != ".py")
        return {path for path in files if not hidden(path.relative_to(self.root))}

    def _code(self, path):
        if path not in self._modules:
            self._modules[path] = Code.of_file(path, self.root)
        return self._modules[path]

    def _name(self, path):
        return path.relative_to(self.root).as_posix()

    def _file(self, path):
        if path not in self._files:
            self._files[path] = digest(path.read_bytes())
        return self._files[path]

    def _experiments(self):
        """Return the names of all folders of records, those of stored claims among them."""
        return {path.name for path in self.results.glob("*/*") if path.is_dir()}

    def _records_of(self, experiment):
        """Hash the names and contents of an experiment's records, of all profiles."""
        if experiment not in self._records:
            paths = sorted(self.results.glob(f"*/{experiment}/*.json"))
            each = [f"{path.relative_to(self.results)} {digest(path.read_bytes())}" for path in paths]
            self._records[experiment] = digest("\n".join(each).encode())
        return self._records[experiment]


class Code:
    """What can be told from a piece of code without running it.

    Attributes
    ----------
    inside : set of Path
        Files of the checkout that it imports.
    outside : set of str
        Packages from elsewhere, by the first part of their names.
    experiments : set of str
        Names of the experiments that it defines.
    variables : set of str
        Environment variables of ours that it names.
    paths : set of str
        Parts of the texts in it that are divided by slashes.
    """

    def __init__(self, tree, folders, package=""):
        self.folders = folders
        self.inside, self.outside, self.experiments, self.variables = set(), set(), set(), set()
        self.paths = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for one in node.names:
                    self._add(one.name)
            elif isinstance(node, ast.ImportFrom):
                outer = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                base = ".".join(filter(None, [*outer, node.module]))
                self._add(base)
                for one in node.names:
                    self._add(f"{base}.{one.name}", required=False)
            elif isinstance(node, ast.Call):
                self._called(node)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                self.variables |= {node.value} & set(re.findall(r"^MEMCOMP_[A-Z]+", node.value))
                self.paths |= set(node.value.split("/"))

    @classmethod
    def of_file(cls, path, root):
        """Analyse a file of a checkout."""
        if path.suffix != ".py":
            return cls(ast.Module([], []), [root])
        inner = path.relative_to(root).with_suffix("").parts
        package = ".".join(inner[:-1])
        return cls(ast.parse(path.read_bytes()), [path.parent, root] if not package else [root], package)

    @classmethod
    def of_cells(cls, sources, root):
        """Analyse the code cells of a notebook; modules beside it can be imported."""
        lines = "\n".join(sources).splitlines()
        plain = "\n".join("pass" if re.match(r"\s*[%!]", line) else line for line in lines)
        try:
            tree = ast.parse(plain)
        except SyntaxError:  # its execution will say so
            tree = ast.Module([], [])
        return cls(tree, [root / "notebooks", root])

    def _called(self, node):
        """Take down an experiment's name, and an import by a name that is computed."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        if name == "experiment" and isinstance(first, str):
            self.experiments.add(first)
        elif name in ("import_module", "__import__"):
            if isinstance(first, str):
                self._add(first)
            else:
                packages = (folder / "memcomp" for folder in self.folders)
                self.inside |= {path for package in packages for path in package.rglob("*.py")}

    def _add(self, name, required=True):
        """Take down a module by its full name; what `from` names need not be one."""
        parts = name.split(".")
        for folder in self.folders:
            places = [folder.joinpath(*parts[:end]) for end in range(1, len(parts) + 1)]
            files = [file for one in places for file in (one / "__init__.py", one.with_suffix(".py"))]
            if known := set(filter(Path.is_file, files)):
                self.inside |= known
                return
        if required and parts[0]:
            self.outside.add(parts[0])


@functools.cache
def installed(modules):
    """Return the installed versions of some packages and of all that they require, by their names.

    Parameters
    ----------
    modules : frozenset of str
        As they are imported: ``PIL``, not ``pillow``.
    """
    names = distributions()
    todo = {canonicalize_name(one) for module in modules for one in names.get(module, [module])}
    todo.add(KERNEL)
    found = {}
    while todo:
        name = todo.pop()
        version, needs = distribution(name)
        found[name] = version
        todo |= needs - found.keys()
    return {name: version for name, version in sorted(found.items()) if version}


distributions = functools.cache(importlib.metadata.packages_distributions)


@functools.cache
def distribution(name):
    """Return the version of an installed distribution, None without it, and what it requires here."""
    try:
        one = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None, set()
    needs = set()
    for text in one.requires or []:
        with contextlib.suppress(InvalidRequirement):
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                needs.add(canonicalize_name(needed.name))
    return one.version, needs


def hidden(path):
    """Tell whether a file is one that an editor or the interpreter leaves."""
    return any(part == "__pycache__" or part.startswith(".") for part in path.parts)


def digest(content):
    """Return the SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()
