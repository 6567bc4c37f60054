"""Make texts.tsv: what the synthetic training corpus says, in which voice, how high and how fast.

The texts are in the manner of AN4: spelled names and codes, numbers, dates, commands, addresses.
They are drawn at random, seeded, from the lists below. None of them is a text of the sample corpus
or of AN4's test set, and no voice is one of the sample corpus's: those two are what a model that
was trained on them is measured on.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
SEED = 7
COUNT = 8000
FIELDS = ("id", "transcript", "voice", "pitch", "words_per_minute", "style")
STYLES = {"spelling": 0.18, "number": 0.17, "date": 0.17, "command": 0.13, "address": 0.35}

ACCENTS = (
    "en-us en-gb en-029 en-gb-scotland en-us-nyc en-gb-x-rp en-gb-x-gbclan en-gb-x-gbcwmd".split()
)
# espeak-ng's variants that sound like people, without f1 to f4, m1 to m3 and m7: the sample has
# those. As espeak-ng names their files.
VARIANTS = (
    "f5 m4 m5 m6 m8 Alex Alicia Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Lee Marco "
    "Mario Michael Mike Nguyen Jacky adam anika antonio belinda benjamin boris caleb david ed "
    "edward edward2 grandma grandpa gustave iven iven2 iven3 john linda marcelo max michel miguel "
    "pablo paul pedro quincy rob robert sandro shelby steph steph2 steph3 travis victor zac"
).split()

DIGITS = "ZERO ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE".split()
TEENS = "TEN ELEVEN TWELVE THIRTEEN FOURTEEN FIFTEEN SIXTEEN SEVENTEEN EIGHTEEN NINETEEN".split()
TENS = "TWENTY THIRTY FORTY FIFTY SIXTY SEVENTY EIGHTY NINETY".split()
ORDINALS = (
    "FIRST SECOND THIRD FOURTH FIFTH SIXTH SEVENTH EIGHTH NINTH TENTH ELEVENTH TWELFTH THIRTEENTH "
    "FOURTEENTH FIFTEENTH SIXTEENTH SEVENTEENTH EIGHTEENTH NINETEENTH TWENTIETH"
).split() + [f"TWENTY {o}" for o in "FIRST SECOND THIRD FOURTH FIFTH SIXTH SEVENTH EIGHTH".split()]
ORDINALS += ["TWENTY NINTH", "THIRTIETH", "THIRTY FIRST"]
MONTHS = (
    "JANUARY FEBRUARY MARCH APRIL MAY JUNE JULY AUGUST SEPTEMBER OCTOBER NOVEMBER DECEMBER".split()
)
DAYS = "MONDAY TUESDAY WEDNESDAY THURSDAY FRIDAY SATURDAY SUNDAY".split()
HOLIDAYS = (
    "CHRISTMAS EVE|CHRISTMAS DAY|NEW YEAR'S EVE|EASTER SUNDAY|LABOR DAY|MEMORIAL DAY|THE NEW YEAR|"
    "VALENTINE'S DAY|MOTHER'S DAY|FATHER'S DAY|INDEPENDENCE DAY|BOXING DAY|GOOD FRIDAY|TODAY|"
    "TOMORROW|YESTERDAY|NEXT WEEK|LAST YEAR|NEXT MONTH|THIS MORNING|NOON|MIDNIGHT"
).split("|")
NAMES = (
    "ADAM ALAN ALICE AMANDA AMY ANDREW ANGELA ANNA ANTHONY ARTHUR BARBARA BENJAMIN BETTY BRIAN "
    "CAROL CATHERINE CHARLES CHLOE CHRISTINE CLAIRE DANIEL DAVID DEBORAH DENNIS DIANA DONALD DORIS "
    "DOROTHY DOUGLAS EDWARD ELIZABETH EMILY EMMA ERIC ERNEST EUGENE EVELYN FRANCIS FRANK GEORGE "
    "GERALD GLORIA GORDON GREGORY HANNAH HAROLD HEATHER HELEN HENRY HOWARD IRENE ISAAC JACK JAMES "
    "JANET JASON JEFFREY JENNIFER JESSICA JOAN JOHN JONATHAN JOSEPH JOSHUA JOYCE JUDITH JULIA "
    "KATHLEEN KEITH KENNETH KEVIN KYLE LARRY LAURA LAWRENCE LEONARD LILY LINDA LISA LOUIS LUCY "
    "MARGARET MARIA MARK MARTHA MARTIN MARY MATTHEW MELISSA MICHAEL MICHELLE MILDRED NANCY "
    "NATHAN NICHOLAS NICOLE NORMAN OLIVER OSCAR PAMELA PATRICIA PATRICK PAUL PETER PHILIP PHYLLIS "
    "RACHEL RALPH RAYMOND REBECCA RICHARD ROBERT ROGER RONALD ROSE ROY RUSSELL RUTH RYAN SAMUEL "
    "SANDRA SARAH SCOTT SEAN SHARON SHIRLEY SIMON SOPHIA STEPHEN STEVEN SUSAN TERESA TERRY "
    "THEODORE THERESA THOMAS TIMOTHY TYLER VICTORIA VINCENT VIRGINIA WALTER WAYNE WILLIAM XAVIER "
    "YVONNE ZOE "
    "ADAMS ALLEN ANDERSON BAILEY BAKER BELL BENNETT BROOKS BROWN BUTLER CAMPBELL CARTER CLARK "
    "COLEMAN COLLINS COOK COOPER COX CRUZ DAVIS DIAZ EDWARDS EVANS FISHER FLORES FOSTER GARCIA "
    "GOMEZ GONZALEZ GRAY GREEN GRIFFIN HALL HARRIS HAYES HERNANDEZ HILL HUGHES JACKSON JENKINS "
    "JOHNSON JONES KELLY KIM KING LEE LEWIS LONG LOPEZ MARTINEZ MILLER MITCHELL MOORE MORALES "
    "MORGAN MORRIS MURPHY MYERS NELSON NGUYEN ORTIZ PARKER PATTERSON PEREZ PERRY PETERSON PHILLIPS "
    "POWELL PRICE RAMIREZ REED REYES RICHARDSON RIVERA ROBERTS ROBINSON RODRIGUEZ ROGERS ROSS "
    "SANCHEZ SANDERS SIMMONS SMITH STEWART SULLIVAN TAYLOR THOMPSON TORRES TURNER WALKER WARD "
    "WASHINGTON WATSON WHITE WILSON WOOD WRIGHT YOUNG KOWALSKI SCHMIDT FITZGERALD MACDONALD "
    "QUIGLEY VASQUEZ WYATT ZIMMERMAN JUAREZ BOUVIER HUXLEY KLEIN BANKS BYRD BLAKE "
    "PAYNE PIERCE DUKE VAUGHN"
).split()
COMMANDS = (
    "GO|GO ON|GO AHEAD|GO FORWARD|STOP NOW|PLEASE STOP|START|START OVER|START AGAIN|HELP ME|"
    "HELP PLEASE|NO THANKS|NO PLEASE|YES PLEASE|YES GO ON|CLEAR|CLEAR ALL|CLEAR IT|ERASE|ERASE IT|"
    "ERASE ALL|ERASE THE LINE|REPEAT|REPEAT IT|REPEAT PLEASE|REPEAT THE LAST ONE|ENTER|ENTER IT|"
    "ENTER AGAIN|RUBOUT|RUBOUT ALL|BACK|NEXT|NEXT LINE|LAST LINE|GO TO THE END|GO TO THE START|"
    "STOP AND GO BACK|STOP THERE|STOP AT THE END|CLEAR THE LAST DIGIT|ERASE THE LAST LETTER|"
    "REPEAT THE NUMBER|REPEAT THE DIGITS|START AND STOP|YES AND NO|HELP AND REPEAT"
).split("|")
TREES = (
    "ASH BEECH BIRCH CEDAR CHERRY CHESTNUT CYPRESS DOGWOOD ELM HAWTHORN HAZEL HICKORY HOLLY IVY "
    "JUNIPER LAUREL LINDEN LOCUST MAGNOLIA MAPLE MYRTLE OAK OLIVE ORCHARD PALM PECAN PINE POPLAR "
    "REDWOOD SPRUCE SYCAMORE WALNUT WILLOW"
).split()
STREETS = (
    "ABBEY BANK BAY BEACH BRIDGE BROAD CANAL CASTLE CENTER CHAPEL CHURCH CLIFF COLLEGE COURT CREEK "
    "CROWN EAST FAIR FARM FIELD FOREST FOUNTAIN FRONT GARDEN GRAND GRANGE GREEN GROVE HARBOUR HIGH "
    "HILL HOPE ISLAND KING'S LAKE LIBERTY LONDON LOWER MAIN MANOR MARKET MEADOW MILL MOUNTAIN NEW "
    "NORTH OCEAN OLD PARADISE PARK PEARL PRINCE PROSPECT QUEEN'S RAILROAD RIDGE RIVER ROSE SAINT "
    "SCHOOL SHORE SOUTH SPRING STATE STATION STONE SUMMIT SUNSET TEMPLE TOWER UNION UPPER VALLEY "
    "VICTORIA VIEW VILLAGE VINE WASHINGTON WATER WELL WEST WINDSOR WOOD YORK"
).split()
KINDS = (
    "STREET ROAD AVENUE LANE DRIVE PLACE SQUARE COURT HILL BOULEVARD WAY CLOSE CRESCENT TERRACE "
    "GARDENS PARK BEND CIRCLE HEIGHTS POINT"
).split()
PLACES = (
    "ABERDEEN|ALBANY|ATLANTA|AUSTIN|BALTIMORE|BATH|BELFAST|BERLIN|BIRMINGHAM|BOSTON|BRADFORD|"
    "BRIGHTON|BRISTOL|BUFFALO|CAMBRIDGE|CARDIFF|CHARLOTTE|CHESTER|CHICAGO|CINCINNATI|CLEVELAND|"
    "COLUMBUS|COVENTRY|DALLAS|DENVER|DERBY|DETROIT|DOVER|DUBLIN|DUNDEE|DURHAM|EDINBURGH|EL PASO|"
    "EXETER|FRESNO|GLASGOW|HARTFORD|HOUSTON|HULL|INDIANAPOLIS|JERSEY CITY|KANSAS CITY|LANCASTER|"
    "LAS VEGAS|LEEDS|LEICESTER|LINCOLN|LIVERPOOL|LONDON|LONG BEACH|LOS ANGELES|LOUISVILLE|MADISON|"
    "MANCHESTER|MEMPHIS|MIAMI|MILWAUKEE|MINNEAPOLIS|MONTREAL|NASHVILLE|NEW ORLEANS|NEW YORK|"
    "NEWCASTLE|NORFOLK|NORWICH|NOTTINGHAM|OAKLAND|OMAHA|ORLANDO|OXFORD|PARIS|PERTH|PHILADELPHIA|"
    "PHOENIX|PITTSBURGH|PLYMOUTH|PORTLAND|PORTSMOUTH|PRESTON|READING|RICHMOND|ROCHESTER|ROME|"
    "SACRAMENTO|SAINT LOUIS|SALEM|SALISBURY|SALT LAKE CITY|SAN DIEGO|SAN FRANCISCO|SEATTLE|"
    "SHEFFIELD|SOUTHAMPTON|SPRINGFIELD|STIRLING|SWANSEA|SYDNEY|TAMPA|TOLEDO|TORONTO|TUCSON|TULSA|"
    "VANCOUVER|WASHINGTON|WINCHESTER|WORCESTER|YORK"
).split("|")
STATES = (
    "ALABAMA|ALASKA|ARIZONA|ARKANSAS|CALIFORNIA|COLORADO|CONNECTICUT|DELAWARE|FLORIDA|GEORGIA|"
    "HAWAII|IDAHO|ILLINOIS|INDIANA|IOWA|KANSAS|KENTUCKY|LOUISIANA|MAINE|MARYLAND|MASSACHUSETTS|"
    "MICHIGAN|MINNESOTA|MISSISSIPPI|MISSOURI|MONTANA|NEBRASKA|NEVADA|NEW HAMPSHIRE|NEW JERSEY|"
    "NEW MEXICO|NEW YORK|NORTH CAROLINA|NORTH DAKOTA|OHIO|OKLAHOMA|OREGON|PENNSYLVANIA|"
    "RHODE ISLAND|SOUTH CAROLINA|SOUTH DAKOTA|TENNESSEE|TEXAS|UTAH|VERMONT|VIRGINIA|WASHINGTON|"
    "WEST VIRGINIA|WISCONSIN|WYOMING"
).split("|")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Texts:
    """Draws texts, each style by a method of its name."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def one_of(self, choices):
        return choices[int(self.rng.integers(len(choices)))]

    def number_of(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def chance(self, share):
        return self.rng.random() < share

    def spelling(self):
        if self.chance(0.45):
            text = " ".join(self.one_of(NAMES))
        elif self.chance(0.3):
            place = self.one_of(PLACES + STREETS + TREES).replace("'", "").replace(" ", "")
            text = " ".join(place)
        else:
            text = " ".join(self.one_of(LETTERS) for _ in range(self.number_of(1, 7)))
        if self.chance(0.2):
            text = f"{text} {self.one_of([self.digits(1, 4), self.cardinal(999)])}"
        return text

    def digits(self, low, high):
        digits = [self.one_of(DIGITS) for _ in range(self.number_of(low, high))]
        return " ".join("OH" if d == "ZERO" and self.chance(0.6) else d for d in digits)

    def under_hundred(self, n):
        if n < 10:
            return DIGITS[n]
        if n < 20:
            return TEENS[n - 10]
        tens = TENS[n // 10 - 2]
        return tens if n % 10 == 0 else f"{tens} {DIGITS[n % 10]}"

    def under_thousand(self, n):
        hundreds, rest = divmod(n, 100)
        if not hundreds:
            return self.under_hundred(rest)
        joint = " AND " if self.chance(0.5) else " "
        rest = joint + self.under_hundred(rest) if rest else ""
        return f"{DIGITS[hundreds]} HUNDRED{rest}"

    def cardinal(self, high):
        n = self.number_of(0, high)
        text = ""
        for size, word in ((10**6, "MILLION"), (1000, "THOUSAND")):
            count, n = divmod(n, size)
            if count:
                text += f"{self.under_thousand(count)} {word} "
        if n and text and n < 100 and self.chance(0.5):
            text += "AND "
        return (text + self.under_thousand(n) if n or not text else text).strip()

    def number(self):
        if self.chance(0.45):
            return self.digits(1, 9)
        if self.chance(0.15):
            return f"{self.cardinal(99)} POINT {self.digits(1, 3)}"
        if self.chance(0.25):
            pairs = [
                self.under_hundred(self.number_of(10, 99)) for _ in range(self.number_of(1, 3))
            ]
            return " ".join(pairs)
        return self.cardinal(self.one_of([20, 99, 999, 9999, 99999, 9999999]))

    def year(self):
        if self.chance(0.2):
            end = self.number_of(0, 30)
            joint = self.one_of(["", " AND"])
            return "TWO THOUSAND" + (f"{joint} {self.under_hundred(end)}" if end else "")
        century = self.one_of(["NINETEEN"] * 5 + ["EIGHTEEN", "TWENTY", "SEVENTEEN"])
        end = self.number_of(1, 99)
        return f"{century} {'OH ' if end < 10 else ''}{self.under_hundred(end)}"

    def date(self):
        month, day = self.one_of(MONTHS), self.one_of(ORDINALS)
        forms = [f"{month} {day}"] * 3 + [f"{day} OF {month}", f"THE {day} OF {month}", month]
        text = self.one_of(forms)
        if self.chance(0.15):
            return self.one_of(HOLIDAYS)
        if self.chance(0.25):
            text = f"{self.one_of(DAYS)} {text}"
        return f"{text} {self.year()}" if self.chance(0.5) else text

    def command(self):
        if self.chance(0.3):
            return self.one_of(COMMANDS)
        verb = self.one_of("ENTER ERASE RUBOUT REPEAT CLEAR START STOP GO".split())
        if verb in ("GO", "START", "STOP"):
            place = self.one_of(["TO LINE", "AT LINE", "AT NUMBER", "WITH NUMBER", "TO PAGE"])
            return f"{verb} {place} {self.under_hundred(self.number_of(0, 99))}"
        letters = " ".join(self.one_of(LETTERS) for _ in range(self.number_of(1, 4)))
        rest = [self.digits(1, 4), letters, f"{letters} {self.digits(1, 2)}", f"THE {letters}"]
        text = f"{verb} {self.one_of(rest)}"
        if self.chance(0.2):
            text += " " + self.one_of(["AND GO", "AND STOP", "AND REPEAT", "AGAIN", "AND START"])
        return text

    def address(self):
        town = self.one_of(PLACES)
        if self.chance(0.5):
            town = f"{town} {self.one_of(STATES)}" if self.chance(0.4) else town
        if self.chance(0.25):
            return self.one_of([town, town, self.one_of(STATES), f"UNIVERSITY OF {town}"])
        name = self.one_of(self.one_of([TREES, STREETS, STREETS, NAMES]))
        if self.chance(0.15):
            name = f"{name} {self.one_of(STREETS)}"
        text = f"{name} {self.one_of(KINDS)}"
        if self.chance(0.1):
            text = "O'" + text if text[0] in "BCDGHKLMNR" else text
        if self.chance(0.7):
            text = f"{self.under_thousand(self.number_of(1, 199))} {text}"
        return f"{text} {town}" if self.chance(0.3) else text


def rows_of(path):
    """The rows of a table, as dicts."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def main():
    """Write the table named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="table to write (TSV)")
    args = parser.parse_args()
    sample = rows_of(HERE.parent / "sample" / "transcripts.tsv")
    an4 = rows_of(HERE.parent / "an4" / "pcm_sha256.tsv")
    forbidden = {row["transcript"] for row in sample}
    forbidden |= {row["transcript"] for row in an4 if row["split"] == "test"}
    drawn = Texts(SEED)
    styles = list(STYLES)
    rows, seen = [], {}
    while len(rows) < COUNT:
        style = styles[int(drawn.rng.choice(len(styles), p=list(STYLES.values())))]
        text = getattr(drawn, style)()
        accent, variant = drawn.one_of(ACCENTS), drawn.one_of(VARIANTS)
        pitch, speed = drawn.number_of(25, 75), drawn.number_of(115, 190)
        seen[text] = seen.get(text, 0) + 1
        if text in forbidden or seen[text] > 6:  # short commands come again and again
            continue
        name = f"synthetic-{len(rows) + 1:04d}"
        rows.append((name, text, f"{accent}+{variant}", pitch, speed, style))
    with open(args.table, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows([FIELDS, *rows])


if __name__ == "__main__":
    main()
