"""Text tables in the dialects that tools and countries write."""

import gzip

import numpy as np
import pytest

from headwater.core.errors import DataError
from headwater.datasets.read import load, load_blocks

NAMES = ["obs_0", "obs_1", "action", "reward", "terminated"]
ROWS = 30


def numbers():
    """Three episodes of ten steps; the second ends by itself."""
    draw = np.random.default_rng(1)
    table = np.round(draw.uniform(-1, 1, (ROWS, 4)), 3)
    return table, np.arange(ROWS) == 19


def text(delimiter=",", decimal=".", names=NAMES, flags=("0", "1"), end="\n"):
    table, terminal = numbers()
    lines = [delimiter.join(names)]
    for row, flag in zip(table, terminal):
        fields = [f"{x:.3f}".replace(".", decimal) for x in row] + [flags[int(flag)]]
        lines.append(delimiter.join(fields))
    return end.join(lines) + end


def check(data, reading=None):
    table, terminal = numbers()
    kept = np.arange(ROWS) != ROWS - 1
    np.testing.assert_allclose(data.observations, table[kept, :2], atol=1e-6)
    np.testing.assert_allclose(data.actions[:, 0], table[kept, 2], atol=1e-6)
    np.testing.assert_allclose(data.rewards, table[kept, 3], atol=1e-6)
    assert data.terminals.tolist() == terminal[kept].tolist()
    assert data.metadata["reading"]["notes"] == ([] if reading is None else [reading])


@pytest.mark.parametrize("delimiter, words", [(";", "semicolons"), ("\t", "tabs")])
@pytest.mark.parametrize("decimal", [".", ","])
def test_delimiters_and_decimal_marks(tmp_path, delimiter, words, decimal):
    path = tmp_path / "log.csv"
    path.write_text(text(delimiter, decimal))
    more = ", decimal commas" if decimal == "," else ""
    check(load(path), f"the text table was read as columns separated by {words}{more}")
    (path.with_suffix(".tsv")).write_text(text("\t", decimal))
    check(
        load(path.with_suffix(".tsv")),
        "the text table was read as columns separated by tabs" + more,
    )


@pytest.mark.parametrize("name", ["log.txt", "log.csv", "log.dat"])
@pytest.mark.parametrize("decimal", [".", ","])
def test_spaces_however_many(tmp_path, name, decimal):
    rows = [line.split() for line in text(" ", decimal).splitlines()]
    aligned = "".join("  ".join(f"{field:>9}" for field in row) + " \r\n" for row in rows)
    (tmp_path / name).write_text(aligned)
    more = ", decimal commas" if decimal == "," else ""
    reading = f"the text table was read as columns separated by spaces{more}"
    check(load(tmp_path / name), reading)


def test_what_numpy_writes_as_text(tmp_path):
    table, terminal = numbers()
    path = tmp_path / "log.txt"
    np.savetxt(path, np.column_stack([table, terminal]), header=" ".join(NAMES))
    check(load(path), "the text table was read as columns separated by spaces")


def test_quoted_names_keep_their_spaces(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text(text(" ", names=['"room  warm"', '"out side"', *NAMES[2:]]))
    data = load(path, columns={"observations": ["room  warm", "out side"]})
    check(data, "the text table was read as columns separated by spaces")


def test_a_time_with_a_space_is_divided_by_commas(tmp_path):
    path = tmp_path / "log.csv"
    lines = text().splitlines()
    times = ["time", *(f"2024-01-01 10:{i:02}" for i in range(ROWS))]
    path.write_text("\n".join(f"{a},{b}" for a, b in zip(times, lines)) + "\n")
    np.testing.assert_allclose(load(path).rewards, numbers()[0][:-1, 3], atol=1e-6)


def test_a_header_may_hold_the_other_delimiter(tmp_path):
    path = tmp_path / "log.csv"
    names = ["time, local", "power, used", "gain"]
    rows = [f"{i},5;{i / 100:.2f};0,25".replace(".", ",") for i in range(9)]
    path.write_text(";".join(names) + "\n" + "\n".join(rows) + "\n")
    columns = {"observations": names[0], "actions": names[1], "rewards": names[2]}
    data = load(path, columns=columns, never_terminal=True)
    np.testing.assert_allclose(data.observations[:, 0], np.arange(8) + 0.5)
    np.testing.assert_allclose(data.actions[:, 0], np.arange(8) / 100, atol=1e-6)


@pytest.mark.parametrize(
    "encoding, said",
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("cp1252", "text in cp1252"),
        ("utf-16", "text in utf-16"),
    ],
)
def test_encodings(tmp_path, encoding, said):
    path = tmp_path / "log.csv"
    names = ["Außen °C", "Raum °C", *NAMES[2:]]
    path.write_bytes(text(names=names, end="\r\n").encode(encoding))
    reading = None if said is None else f"the text table was read as {said}"
    check(load(path, columns={"observations": names[:2]}), reading)


@pytest.mark.parametrize("delimiter, decimal", [(";", ","), ("\t", ","), (",", ".")])
@pytest.mark.parametrize("gain", ["Erlös EUR", "Erlös ?", "Erlo\u0308s €"])
def test_names_that_an_encoding_has_to_write_otherwise(tmp_path, delimiter, decimal, gain):
    # The declaration says what the column is called; the file says what its encoding can.
    encoding = "utf-8" if "€" in gain else "latin-1"
    names = ["Außen °C", "Raum °C", "action", gain, "terminated"]
    path = tmp_path / "log.csv"
    path.write_bytes(text(delimiter, decimal, names=names).encode(encoding))
    (tmp_path / "log.columns.toml").write_text(
        '[columns]\nobservations = ["Außen °C", "Raum °C"]\nrewards = "Erlös €"\n', "utf-8"
    )
    data = load(path)
    table, _ = numbers()
    np.testing.assert_allclose(data.rewards, table[:-1, 3], atol=1e-6)
    assert data.metadata["reading"]["columns"]["rewards"] == [gain]


def test_of_two_columns_that_a_name_may_mean_neither_is_taken(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(text(names=["Kosten ?", "Kosten EUR", *NAMES[2:]]).encode("latin-1"))
    with pytest.raises(DataError, match="the column 'Kosten €' declared for observations is not"):
        load(path, columns={"observations": "Kosten €"})


@pytest.mark.parametrize("quoted", ["all", "numbers with commas"])
def test_decimal_commas_between_commas_are_read_where_they_are_quoted(tmp_path, quoted):
    path = tmp_path / "log.csv"
    lines = [line.split(";") for line in text(";", ",").splitlines()]
    for line in lines:
        line[:] = [f'"{field}"' if quoted == "all" or "," in field else field for field in line]
    path.write_bytes("\n".join(map(",".join, lines)).encode("latin-1"))
    check(load(path), "the text table was read as decimal commas")


def test_thousands_between_commas_are_no_decimals(tmp_path):
    path = tmp_path / "log.csv"
    lines = [line.split(",") for line in text().splitlines()]
    for i, line in enumerate(lines[1:]):
        line[3] = f'"{1 + i},234"'
    path.write_text("\n".join(map(",".join, lines)))
    with pytest.raises(DataError, match=r"column 'reward' has type string.*'1,234' at row 0"):
        load(path)


def test_marks_between_thousands_are_told_where_a_number_has_two_kinds(tmp_path):
    path = tmp_path / "log.csv"
    exact = 1_000.0 + np.arange(ROWS) / 4 - 2_000.0 * (np.arange(ROWS) % 2)
    exact[3] = 1_234_567.0
    for delimiter, marks, words in ((";", ".,", "decimal commas, "), ("|", ",.", "")):
        lines = [line.split(delimiter) for line in text(delimiter, marks[1]).splitlines()]
        for line, value in zip(lines[1:], exact):
            line[3] = f"{value:,.2f}".translate(str.maketrans(",.", marks))
        lines[4][3] = lines[4][3].split(marks[1])[0]
        path.write_text("\n".join(map(delimiter.join, lines)))
        data = load(path)
        np.testing.assert_allclose(data.rewards, exact[:-1], rtol=1e-6)
        name = {";": "semicolons", "|": "vertical bars"}[delimiter]
        assert data.metadata["reading"]["notes"] == [
            f"the text table was read as columns separated by {name}, {words}thousands divided in "
            "reward"
        ]


@pytest.mark.parametrize(
    "above, note",
    [
        (
            "# logged by 7\n# units: W, s\n",
            "2 lines above the header left out, from '# logged by 7' on",
        ),
        ("Heating, 2024\n\n", "2 lines above the header left out, from 'Heating, 2024' on"),
        ("\n", None),
        # The header itself, as NumPy writes it.
        ("# ", None),
    ],
)
def test_lines_above_the_header_are_left_out_and_told(tmp_path, above, note):
    path = tmp_path / "log.csv"
    path.write_text(above + text())
    check(load(path), note)
    # Not the names of the columns alone are right: no row is lost to them.
    assert len(load(path)) == ROWS - 1


def test_a_header_with_a_field_less_than_its_rows_is_no_title(tmp_path):
    """Else the first row would become the header, as in tables whose rows have numbers in R."""
    path = tmp_path / "log.csv"
    first, *rows = text().splitlines()
    path.write_text("\n".join([first, *(f"{i},{row}" for i, row in enumerate(rows))]))
    with pytest.raises(DataError, match="every line needs as many fields as the header"):
        load(path)


@pytest.mark.parametrize("between", ["", "\n"])
def test_a_line_of_units_under_the_header_is_no_row(tmp_path, between):
    path = tmp_path / "log.csv"
    first, *rows = text().splitlines()
    path.write_text("\n".join([first + between, "degC,-,,kW,-" + between, *rows]))
    check(load(path), "the line under the header is no row but units: 'degC,-,,kW,-'")
    # A first row of missing numbers is a row.
    path.write_text("\n".join([first, "NaN,NaN,NA,null,0", *rows]))
    with pytest.raises(DataError, match="row 0"):
        load(path)


def test_what_is_beyond_the_first_megabyte_decides_the_encoding_too(tmp_path):
    path = tmp_path / "log.csv"
    lines = text().splitlines()
    lines = [lines[0] + ",remark", *(line + "," + "a" * 60_000 for line in lines[1:])]
    lines[-1] = lines[-1][:-1] + "é"
    path.write_bytes("\n".join(lines).encode("cp1252"))
    check(load(path), "the text table was read as text in cp1252")


def test_compressed_tables_and_their_declarations(tmp_path):
    names = ["a", "b", *NAMES[2:]]
    for name in ("log.csv.gz", "log.tsv.gz"):
        delimiter = "\t" if "tsv" in name else ","
        (tmp_path / name).write_bytes(gzip.compress(text(delimiter, names=names).encode()))
        for declaration in ("log.columns.toml", f"{name[:-3]}.columns.toml"):
            (tmp_path / declaration).write_text('[columns]\nobservations = ["a", "b"]\n')
            reading = "the text table was read as columns separated by tabs"
            check(load(tmp_path / name), reading if "tsv" in name else None)
            (tmp_path / declaration).unlink()
    path = tmp_path / "log.csv.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"this \.gz file is truncated or corrupt"):
        load(path)
    path.write_bytes(gzip.compress(b"a,b\n" + b"0,0\n" * 20_000_000))
    with pytest.raises(DataError, match="of data but holds"):
        load(path)


@pytest.mark.parametrize("flags", [("no", "yes"), ("FALSE", "TRUE"), ("n", "Y"), ("f", "t")])
def test_flags_in_words(tmp_path, flags):
    path = tmp_path / "log.csv"
    path.write_text(text(flags=flags))
    check(load(path))


def test_a_line_that_tells_the_delimiter(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("sep=;\n" + text(";"))
    check(load(path), "the text table was read as columns separated by semicolons")


def test_what_does_not_fit_is_named_and_not_called_corrupt(tmp_path):
    path = tmp_path / "log.csv"

    def refused(content, *parts):
        path.write_text(content)
        with pytest.raises(DataError) as raised:
            load(path)
        assert "corrupt" not in str(raised.value)
        for part in parts:
            assert part in str(raised.value)

    lines = text().splitlines()
    refused("\n".join([*lines, "1,2"]), "it is no table with columns separated by commas", "got 2")
    refused("\n".join([*lines, "x,0,0,0,0"]), "column 'obs_0' has type string", "'x' at row 30")
    refused("\n".join([*lines, "0,0,0,0,maybe"]), "column 'terminated'", "'maybe' at row 30")
    refused("\n".join([*lines, "0,0,0,,0"]), "column 'reward' has no value at row 30")
    path.write_bytes(b"\x00\x01\x02" * 100)
    with pytest.raises(DataError, match="this is no text"):
        load(path)


def test_blocks_of_a_text_table(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(text(";", ","))
    blocks = list(load_blocks(path, 10))
    assert [block.size for block in blocks] == [20, 9]
    assert all("decimal commas" in block.metadata["reading"]["notes"][0] for block in blocks)


def test_a_table_without_a_header_is_named(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("0.5,1.0,0.25,False\n0.75,2.0,0.5,False\n1.0,3.0,0.75,True\n")
    with pytest.raises(DataError, match="the table has no header: its first line holds values"):
        load(path)
    # Names that pandas gives to columns that have none.
    path.write_text("0,1,2,3\n" + path.read_text())
    roles = {"observations": "0", "actions": "2", "rewards": "1", "terminals": "3"}
    assert load(path, columns=roles).rewards.tolist() == [1, 2, 3]
    path.write_text(",0,1,2,3\n0,0.5,1.0,0.25,False\n1,0.75,2.0,0.5,True\n")
    assert load(path, columns=roles).rewards.tolist() == [1, 2]
